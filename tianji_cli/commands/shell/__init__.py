"""What a shell shows of the commands: their list, and words to complete."""
