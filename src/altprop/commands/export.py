"""The tasks ``export_binary`` and ``export_sparse``: write a trained network as files that do not need altprop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from altprop.nn.export.binary import load_packed, save_packed, save_plain
from altprop.nn.export.sparse import load_sparse, save_sparse
from altprop.problems import ConfigError, Problem
from altprop.training.parts import Parts
from altprop.training.trained import load_trained, require_same_scores

log = logging.getLogger(__name__)

PACKED, SPARSE, PLAIN = "packed.safetensors", "sparse.safetensors", "float.safetensors"

Save = Callable[[nn.Module, Path], int]
Load = Callable[[Path], Mapping[str, Tensor]]


def export_binary(parts: Parts, checkpoint: str = "auto") -> dict[str, int]:
    """Write ``export/packed.safetensors`` (one bit per binary weight) and ``export/float.safetensors`` (-1 and 1) of the run.

    The packed file is read back and must give exactly the run's scores on the test split. Returns the sizes in bytes. Raises
    ``ConfigError`` if there is no checkpoint or no layer is binary, and ``RunFailed`` if the scores differ.
    """
    needed = Problem("task", "", "a run whose weights are binary", "algorithm/weights=binary")
    return _export(parts, checkpoint, PACKED, save_packed, load_packed, needed)


def export_sparse(parts: Parts, checkpoint: str = "auto") -> dict[str, int]:
    """Write ``export/sparse.safetensors`` (masks and nonzero weights) and ``export/float.safetensors`` (all weights) of the run.

    The sparse file is read back and must give exactly the run's scores on the test split. Returns the sizes in bytes. Raises
    ``ConfigError`` if there is no checkpoint or no layer is sparse, and ``RunFailed`` if the scores differ.
    """
    needed = Problem("task", "", "a run whose weights are sparse", "algorithm/weights=static_sparse")
    return _export(parts, checkpoint, SPARSE, save_sparse, load_sparse, needed)


def _export(parts: Parts, checkpoint: str, name: str, save: Save, load: Load, needed: Problem) -> dict[str, int]:
    """Write the small file ``name`` and the plain one. ``needed`` is the problem, without its description, if nothing fits."""
    run = load_trained(parts, checkpoint).run
    folder = parts.directory / "export"
    try:
        sizes = {name: save(run.algorithm.model, folder / name)}
    except ValueError as error:
        raise ConfigError([Problem(needed.key, str(error), needed.allowed, needed.fix)]) from error
    sizes[PLAIN] = save_plain(run.algorithm.model, folder / PLAIN)
    require_same_scores(parts, run, load(folder / name), folder / name)
    log.info(
        "%s: %s bytes, %s: %s bytes, %.1f times as many; same scores on the test split",
        folder / name, f"{sizes[name]:,}", PLAIN, f"{sizes[PLAIN]:,}", sizes[PLAIN] / sizes[name],
    )  # fmt: skip
    return sizes
