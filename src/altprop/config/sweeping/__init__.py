"""Many runs from one command: which of them are left to do, in worker processes here or as jobs of SLURM, and how they fare."""
