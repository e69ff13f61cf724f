"""Which rollouts may start, with which weights, and which are trained next. Pure: no clock."""
