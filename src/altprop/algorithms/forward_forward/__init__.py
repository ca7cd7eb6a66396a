"""Learning from two forward passes, one on real data and one on negative data."""
