"""Experiment trackers: what a run traces, in TensorBoard, Weights & Biases and MLflow."""
