"""Trackers: metrics file, console, W&B, TensorBoard, and the run's metadata."""
