"""What old samples did to a run: importance ratios by lag, and who was dropped."""
