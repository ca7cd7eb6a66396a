"""Seeds of independent random streams, derived from a run's seed and the stream's name."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *stream: str | int) -> int:
    """A 63-bit seed for one random stream of a run, independent of every other stream.

    ``stream`` names it: ``derive_seed(seed, "order", epoch)`` is the order of one epoch.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *stream))).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
