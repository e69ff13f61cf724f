"""Commands to start with: what there is to choose from, and files of one's own."""
