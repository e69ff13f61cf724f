"""YAML files and settings become typed specs, or one clear error that names file and key."""
