"""The tasks ``export_binary``, ``export_sparse``, ``export_onnx``: write a trained network as files that do not need altprop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from altprop.nn.export.binary import load_packed, save_packed, save_plain
from altprop.nn.export.onnx_file import load_onnx, missing_packages, save_onnx
from altprop.nn.export.sparse import load_sparse, save_sparse
from altprop.nn.fused_attention import without_fused_attention
from altprop.nn.units.base import hard_units
from altprop.problems import ConfigError, Problem, RunFailed, first_line_of
from altprop.training.assembly import Assembly
from altprop.training.parts import Parts
from altprop.training.trained import load_trained, require_same_scores

log = logging.getLogger(__name__)

PACKED, SPARSE, PLAIN, ONNX = "packed.safetensors", "sparse.safetensors", "float.safetensors", "model.onnx"
ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-10}
"""How much of the largest score two ways of computing may differ by."""
FLIPPED = 0.02
"""The largest share of images whose scores may differ because rounding has flipped a hard unit."""

Save = Callable[[nn.Module, Path], int]
Load = Callable[[Path], Mapping[str, Tensor]]


def export_binary(parts: Parts, checkpoint: Literal["auto", "best", "last"] = "auto") -> dict[str, int]:
    """Write ``export/packed.safetensors`` (one bit per binary weight) and ``export/float.safetensors`` (-1 and 1) of the run.

    The packed file is read back and must give exactly the run's scores on the test split. Returns the sizes in bytes. Raises
    ``ConfigError`` if there is no checkpoint or no layer is binary, and ``RunFailed`` if the scores differ.
    """
    needed = Problem("task", "", "a run whose weights are binary", "algorithm/weights=binary")
    return _export(parts, checkpoint, PACKED, save_packed, load_packed, needed)


def export_sparse(parts: Parts, checkpoint: Literal["auto", "best", "last"] = "auto") -> dict[str, int]:
    """Write ``export/sparse.safetensors`` (masks and nonzero weights) and ``export/float.safetensors`` (all weights) of the run.

    The sparse file is read back and must give exactly the run's scores on the test split. Returns the sizes in bytes. Raises
    ``ConfigError`` if there is no checkpoint or no layer is sparse, and ``RunFailed`` if the scores differ.
    """
    needed = Problem("task", "", "a run whose weights are sparse", "algorithm/weights=static_sparse")
    return _export(parts, checkpoint, SPARSE, save_sparse, load_sparse, needed)


def export_onnx(parts: Parts, checkpoint: Literal["auto", "best", "last"] = "auto") -> dict[str, int]:
    """Write ``export/model.onnx``, which takes images as the run's data set normalizes them and gives scores.

    The file is read back with onnxruntime and must give the run's scores on the test split. Since its kernels add up in another
    order, they are equal up to rounding, which may flip single hard units. Returns the size in bytes. Raises ``ConfigError`` if
    there is no checkpoint, if packages are missing, or if the algorithm does not compute scores by a forward pass, and
    ``RunFailed`` if the network cannot be exported or its scores differ.
    """
    if missing := missing_packages():
        raise ConfigError([Problem("task", f"needs {', '.join(missing)}", "installed packages", "pip install 'altprop[onnx]'")])
    run = load_trained(parts, checkpoint).run
    path = parts.directory / "export" / ONNX
    with run.algorithm.inference(), without_fused_attention():
        images, _ = next(iter(run.data.test.batches()))
        name = type(run.algorithm).__name__
        try:
            is_forward_pass = torch.equal(run.algorithm.predict(images), run.algorithm.model(images))
        except NotImplementedError:
            is_forward_pass = False
        if not is_forward_pass:
            description = f"{name} does not compute its scores by one forward pass of the network"
            raise ConfigError([Problem("task", description, "another algorithm, such as backprop")])
    try:
        size = save_onnx(run.algorithm.model, images.clone(), path)
    except Exception as error:  # torch's exporter raises anything
        reason = first_line_of(error) or type(error).__name__
        raise RunFailed(f"torch cannot export this network to ONNX ({reason})") from error
    compared, different = _compare(run, load_onnx(path))
    if different > (FLIPPED * compared if any(True for _ in hard_units(run.algorithm.model)) else 0):
        raise RunFailed(f"{path} gives other scores than the run for {different} of {compared} images")
    same = "same scores on the test split" if not different else f"{different} of {compared} images differ by flipped units"
    log.info("%s: %s bytes, %s", path, f"{size:,}", same)
    return {ONNX: size}


def _compare(run: Assembly, scores: Callable[[Tensor], Tensor]) -> tuple[int, int]:
    """The number of test images, and of those for which ``scores`` differs from the network's by more than rounding."""
    compared = different = 0
    with run.algorithm.inference(), without_fused_attention():
        for images, _ in run.data.test.batches():
            expected = run.algorithm.model(images).cpu()
            distance = (scores(images.clone()) - expected).abs().amax(dim=1)
            different += int((distance > ROUNDING[expected.dtype] * expected.abs().max()).sum())
            compared += len(images)
    return compared, different


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
