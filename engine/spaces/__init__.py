"""What environments observe and take, as leaves: spaces that are one array each."""
