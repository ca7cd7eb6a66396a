"""The loop, its clock and checkpoints, and the life of a run."""
