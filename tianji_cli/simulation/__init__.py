"""What a run would do on other hosts: the real roles, driven through simulated time."""
