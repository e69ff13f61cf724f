"""What roles do on a device: a fused loop, and a learner whose actors are elsewhere."""
