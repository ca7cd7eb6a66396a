"""``task=check_gradients``: equilibrium propagation against backpropagation through time, in numbers and figures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from altprop.algorithms.equilibrium_propagation.common import EnergyAlgorithm
from altprop.algorithms.equilibrium_propagation.theorem import GradientCheck
from altprop.algorithms.equilibrium_propagation.theorem import check_gradients as compare
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.reporting.figures.equilibrium_propagation import draw_bias_bars, draw_series
from altprop.training.assembly import assemble
from altprop.training.checkpoint import BadCheckpoint, CheckpointStore, read_checkpoint
from altprop.training.parts import Parts

log = logging.getLogger(__name__)

FOLDER = "gradient_check"


def check_gradients(
    parts: Parts,
    *,
    checkpoint: str | None = None,
    samples: int = 20,
    steps: int | None = None,
    beta: float | None = None,
    opposite: bool | None = None,
    continual: bool | None = None,
    figures: bool = True,
) -> dict[str, Any]:
    """Check the network of ``parts`` on the first ``samples`` images of the first training mini-batch; returns the table.

    ``steps``, ``beta``, ``opposite`` and ``continual`` follow the algorithm where they are None.
    Writes ``gradient_check/check.json``, the series as ``series.pt`` and the figures into the run's directory. Raises ConfigError
    for an algorithm without energy or settings that do not go together, RunFailed for a checkpoint that cannot be used.
    """
    if not isinstance(parts.algorithm, EnergyAlgorithm):
        given = f"{type(parts.algorithm).__name__} has no energy to check"
        raise ConfigError([Problem("task", given, "an algorithm on energy-based models", "algorithm=equilibrium_propagation")])
    run = assemble(parts)
    algorithm = parts.algorithm
    source = _load(parts, algorithm, checkpoint)
    steps = _setting("steps", steps, getattr(algorithm, "nudge_steps", None))
    beta = _setting("beta", beta, getattr(algorithm, "beta", None))
    if not 1 <= steps <= algorithm.free_steps:
        allowed = f"from 1 to algorithm.free_steps, which is {algorithm.free_steps}"
        raise ConfigError([Problem("task.steps", str(steps), allowed, f"task.steps={algorithm.free_steps}")])
    if opposite is None:
        opposite = bool(getattr(algorithm, "both_signs", False))
    if continual is None:
        continual = bool(getattr(algorithm, "continual", False))
    inputs, targets = next(iter(run.data.train.batches()))
    with torch.no_grad():
        network = algorithm.network()
    check = compare(
        network,
        inputs[:samples],
        targets[:samples],
        free_steps=algorithm.free_steps,
        steps=steps,
        beta=beta,
        opposite=opposite,
        same_update=getattr(algorithm, "same_update", False),
        continual=continual,
    )
    result = {"parameters": source, "samples": len(inputs[:samples]), "steps": steps, "beta": beta, **table_of(check)}
    folder = parts.directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "check.json").write_text(json.dumps(result, indent=2) + "\n")
    torch.save({"forward": check.forward, "backward": check.backward, "opposite": check.opposite}, folder / "series.pt")
    for line in lines_of(result):
        print(line)
    if figures:
        draw_check(check, folder)
    print(f"tables, series and figures: {folder}")
    return result


def table_of(check: GradientCheck) -> dict[str, Any]:
    """The numbers of ``check``: errors of every series, alignment of every whole estimate, what symmetry leaves of the bias."""
    rows: dict[str, dict[str, float]] = {
        name: {"rmse": float(rmse), "wrong_signs": 100.0 * float(signs)} for name, (rmse, signs) in check.errors().items()
    }
    for name, alignment in check.alignments().items():
        rows[name] |= {
            "angle": float(alignment.angle),
            "norm_ratio": float(alignment.norm_ratio),
            "relative_error": float(alignment.relative_error),
        }
    return {"rows": rows, "bias_ratios": check.bias_ratios()}


def lines_of(result: Mapping[str, Any]) -> list[str]:
    """The table for the terminal; angles in degrees."""
    lines = [f"{'':20}{'RMSE':>10}{'wrong signs':>14}{'angle':>10}{'norm ratio':>12}{'bias ratio':>12}"]
    for name, row in result["rows"].items():
        line = f"{name:20}{row['rmse']:10.4f}{row['wrong_signs']:12.2f} %"
        if "angle" in row:
            line += f"{row['angle']:10.2f}{row['norm_ratio']:12.4f}"
        if name in result["bias_ratios"]:
            line += f"{result['bias_ratios'][name]:12.4f}"
        lines.append(line)
    return lines


def draw_check(check: GradientCheck, folder: Path) -> list[Path]:
    """One figure per parameter and layer of states, and the bars where both signs were checked."""
    drawn = []
    for name, forward in check.forward.items():
        opposite = None if check.opposite is None else check.opposite[name]
        drawn.append(draw_series(name, forward, check.backward[name], folder / f"{name}.png", opposite=opposite))
    if check.opposite is not None:
        drawn.append(draw_bias_bars(check.bias_ratios(), folder / "bars.png"))
    return drawn


def _setting(name: str, given: Any, own: Any) -> Any:
    value = own if given is None else given
    if value is None:
        raise ConfigError([Problem(f"task.{name}", "null", "this algorithm has none of its own to take", f"task.{name}=…")])
    return value


def _load(parts: Parts, algorithm: EnergyAlgorithm, checkpoint: str | None) -> str:
    """Load the parameters wanted; says where they are from."""
    if checkpoint is None:
        found, complaints = CheckpointStore(parts.directory / "checkpoints", parts.key).newest()
        for complaint in complaints:
            log.warning("passed over: %s", complaint)
        if found is None:
            return "fresh"
        algorithm.model.load_state_dict(found.state["algorithm"]["model"])
        return found.path.name
    path = Path(checkpoint)
    if not path.exists():
        raise RunFailed(f"task.checkpoint: there is no {path}; train that run first, or give another file")
    try:
        state = read_checkpoint(path)
        algorithm.model.load_state_dict(state["algorithm"]["model"])
    except (BadCheckpoint, RuntimeError) as error:
        raise RunFailed(f"task.checkpoint: {path} does not hold this network: {str(error).splitlines()[0]}") from error
    return str(path)
