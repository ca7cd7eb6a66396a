"""Trained networks as ONNX files, written and read with the packages of the extra ``onnx``, which are imported only here."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from altprop.files import write_bytes
from altprop.nn.export.plain import without_parametrizations
from altprop.nn.fused_attention import without_fused_attention

OPSET = 18
"""Version of ONNX's operators. It has ``Sign``, which hard units become."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "images", "scores"


def missing_packages() -> list[str]:
    """Return the packages of the extra ``onnx`` that are not installed."""
    missing = []
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return missing


def save_onnx(model: nn.Module, images: Tensor, path: Path) -> int:
    """Write ``model`` in evaluation mode as ONNX and return the file's size in bytes.

    The file takes any number of ``images``, of the shape and the type of those given, ``[batch, channels, height, width]``, and
    gives ``scores`` ``[batch, classes]``. Weights are those that the network computes with. Raises whatever torch raises if a
    module cannot be exported.
    """
    plain = without_parametrizations(model).eval().cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example = images[:2].to("cpu", memory_format=torch.contiguous_format)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), without_fused_attention(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it reports every operator that it does not fold
        program = torch.onnx.export(
            plain,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    write_bytes(path, program.model_proto.SerializeToString())
    return path.stat().st_size


def load_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Return a function that computes the scores of images with the ONNX file ``path`` in onnxruntime, on the CPU."""
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def scores(images: Tensor) -> Tensor:
        (result,) = session.run([OUTPUT], {INPUT: images.cpu().contiguous().numpy()})
        return torch.from_numpy(result)

    return scores
