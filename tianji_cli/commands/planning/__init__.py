"""`tianji plan`: what `up` would start, and what a run would do on other hosts."""
