"""Every key that a file can have, with its type, default and meaning: from the specs themselves."""
