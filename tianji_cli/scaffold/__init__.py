"""The files that `tianji init` writes."""
