"""The wire: how messages become frames and cross process borders. No role logic, no pickle."""
