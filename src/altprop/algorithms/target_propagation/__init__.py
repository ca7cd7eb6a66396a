"""target propagation."""
