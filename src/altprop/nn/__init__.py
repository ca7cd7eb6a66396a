"""Units and their estimators, weights rules, local heads, losses: pure functions and thin modules around them."""
