"""Learning without weight transport: the backward pass, or the error at the output, goes through fixed random weights."""
