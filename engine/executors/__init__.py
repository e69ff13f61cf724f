"""What commands of roles do to the world: environments, training, files."""
