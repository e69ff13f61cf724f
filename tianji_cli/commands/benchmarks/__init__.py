"""`tianji bench` and its kinds, and their reports by `tianji report`."""
