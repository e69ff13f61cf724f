"""`tianji bench` and its kinds, and how `tianji report` reports them."""
