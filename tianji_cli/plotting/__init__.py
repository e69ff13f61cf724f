"""Style and saving of figures."""
