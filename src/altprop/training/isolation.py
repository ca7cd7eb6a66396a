"""Several runs in one process: torch's global settings and random streams are the same after a run as before it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated() -> Iterator[None]:
    """Restore what a run sets for its whole process: threads, TF32, kernel selection, determinism, global random streams.

    Without it, a run with ``trainer.threads=1`` would make the next run of the process use one thread, too.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    threads = torch.get_num_threads()
    tf32, cudnn_tf32, benchmark = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = tf32, cudnn_tf32, benchmark
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            random.setstate(python)
            np.random.set_state(numpy)
