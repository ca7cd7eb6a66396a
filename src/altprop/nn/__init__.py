"""Units and their estimators, weights rules, local heads: pure functions first, thin modules over them."""
