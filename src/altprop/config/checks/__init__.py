"""Checks of a configuration before anything is built: each node, then whether the choices work together."""
