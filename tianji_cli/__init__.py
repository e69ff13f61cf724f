"""TianJi where the user sits: commands, inventories, provisioning, reports. No gradients here."""
