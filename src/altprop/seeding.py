"""Seeds of independent random streams, derived from a run's seed and the name of the stream."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *stream: str | int) -> int:
    """Return a 63-bit seed for the random stream named ``stream``, independent of all other streams of a run.

    For example, ``derive_seed(seed, "order", epoch)`` is the seed of the order of one epoch.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *stream))).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
