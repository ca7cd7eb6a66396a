"""How this process allocates memory for tensors on a CPU."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""The parameters M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's ``mallopt``."""
FREE_AT_END = 2**31 - 1
"""glibc returns the end of its heap to the system once this many bytes of it are free."""
OWN_MAPPING = 2**30
"""glibc takes blocks of at least this many bytes from the system and returns each when it is freed."""


def keep_freed_memory() -> bool:
    """Make this process keep the memory that it frees, for its next tensors. Return whether it does.

    By default, glibc returns large blocks to the system. Each training step then gets its activations as new pages, which the
    system must clear one by one. Settings of the user's own (``MALLOC_…_`` and ``GLIBC_TUNABLES``) and other C libraries are left
    alone.
    """
    own = any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    if own or "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, OWN_MAPPING)) and bool(mallopt(TRIM_THRESHOLD, FREE_AT_END))
