"""Many runs from one command: which of them are left to do, in worker processes here or as SLURM jobs, and their status."""

from altprop.names import lazy_package

__getattr__, __dir__ = lazy_package(__name__)
