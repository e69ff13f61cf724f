"""What old samples did to a run: importance ratios by lag, who was dropped, how the bound moved."""
