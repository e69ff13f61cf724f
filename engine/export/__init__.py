"""Trained policies as files that need nothing of TianJi: what goes in and out, and proof of it."""
