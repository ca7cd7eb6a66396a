"""Weight perturbation, ternary weights, and what is needed to try them."""
