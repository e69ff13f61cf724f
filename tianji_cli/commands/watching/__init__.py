"""Commands that watch runs, and pass on what they write."""
