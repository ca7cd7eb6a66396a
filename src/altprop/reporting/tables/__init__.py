"""Tables over many runs: what they contain, and how they are written as text."""
