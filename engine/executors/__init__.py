"""The effects of roles' commands: environments, training, files."""
