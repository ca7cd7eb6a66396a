"""What the command line prints besides results: the help, and one line for each mistake that Hydra reports."""
