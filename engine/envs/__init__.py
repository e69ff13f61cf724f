"""Environments: Gymnasium's, vectorised, always restarting in next-step mode."""
