"""What networks are made of: trunks, encoders of single leaves, recurrent cores."""
