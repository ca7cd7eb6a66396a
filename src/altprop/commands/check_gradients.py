"""``task=check_gradients``: compare equilibrium propagation with backpropagation through time, in a table and figures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from altprop.algorithms.equilibrium_propagation.base import EnergyAlgorithm
from altprop.algorithms.equilibrium_propagation.theorem import GradientCheck
from altprop.algorithms.equilibrium_propagation.theorem import check_gradients as compare
from altprop.problems import ConfigError, Problem, RunFailed, first_line_of
from altprop.ranges import FilePath, Iterations, NudgeStrength, PositiveInt
from altprop.reporting.figures.equilibrium_propagation import draw_bias_bars, draw_series
from altprop.training.assembly import assemble
from altprop.training.checkpoint import BadCheckpoint, CheckpointStore, read_checkpoint
from altprop.training.parts import Parts

log = logging.getLogger(__name__)

FOLDER = "gradient_check"


def check_gradients(
    parts: Parts,
    *,
    checkpoint: FilePath | None = None,
    samples: PositiveInt = 20,
    steps: Iterations | None = None,
    beta: NudgeStrength | None = None,
    opposite: bool | None = None,
    continual: bool | None = None,
    figures: bool = True,
) -> dict[str, Any]:
    """Check the network of ``parts`` on images of the first training mini-batch and return the table.

    Writes ``gradient_check/check.json``, the series as ``series.pt`` and the figures to the run's directory.

    Args:
        parts: The objects of the run.
        checkpoint: File with the parameters to check. None: the run's newest checkpoint, or fresh parameters if it has none.
        samples: Number of images.
        steps: Time steps of the nudged phase. None: those of the algorithm.
        beta: Strength of the nudge. None: that of the algorithm.
        opposite: Also check the opposite nudge. None: if the algorithm uses both signs.
        continual: Let the parameters move during the nudged phase. None: as in the algorithm.
        figures: Draw figures.

    Raises:
        ConfigError: The algorithm has no energy, or settings contradict each other.
        RunFailed: The checkpoint cannot be used.
    """
    if not isinstance(parts.algorithm, EnergyAlgorithm):
        description = f"{type(parts.algorithm).__name__} has no energy to check"
        raise ConfigError(
            [Problem("task", description, "an algorithm on energy-based models", "algorithm=equilibrium_propagation")]
        )
    fresh = checkpoint is None and CheckpointStore(parts.directory / "checkpoints", parts.key).is_empty()
    run = assemble(parts, start=fresh)
    algorithm = parts.algorithm
    source = _load_parameters(parts, algorithm, checkpoint)
    steps = _value_of("steps", steps, getattr(algorithm, "nudge_steps", None))
    beta = _value_of("beta", beta, getattr(algorithm, "beta", None))
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
    """Return the numbers of ``check``: errors of every series, alignment of every whole estimate, and bias ratios."""
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
    """Return the lines of the table for the terminal; angles are in degrees."""
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
    """Draw one figure per parameter and layer of states, and bars of the bias ratios if both signs were checked."""
    files = []
    for name, forward in check.forward.items():
        opposite = None if check.opposite is None else check.opposite[name]
        files.append(draw_series(name, forward, check.backward[name], folder / f"{name}.png", opposite=opposite))
    if check.opposite is not None:
        files.append(draw_bias_bars(check.bias_ratios(), folder / "bars.png"))
    return files


def _value_of(name: str, setting: Any, default: Any) -> Any:
    """Return ``setting``, or the algorithm's ``default`` if it is None; raises ConfigError if both are."""
    value = default if setting is None else setting
    if value is None:
        raise ConfigError([Problem(f"task.{name}", "null", "a value, because this algorithm has none", f"task.{name}=…")])
    return value


def _load_parameters(parts: Parts, algorithm: EnergyAlgorithm, checkpoint: str | None) -> str:
    """Load the parameters to check and return a name for their source."""
    if checkpoint is None:
        newest, complaints = CheckpointStore(parts.directory / "checkpoints", parts.key).newest()
        for complaint in complaints:
            log.warning("skipped: %s", complaint)
        if newest is None:
            return "fresh"
        algorithm.model.load_state_dict(newest.state["algorithm"]["model"])
        return newest.path.name
    path = Path(checkpoint)
    if not path.exists():
        raise RunFailed(f"task.checkpoint: {path} does not exist; train that run first, or give another file")
    try:
        state = read_checkpoint(path)
        algorithm.model.load_state_dict(state["algorithm"]["model"])
    except (BadCheckpoint, RuntimeError) as error:
        raise RunFailed(f"task.checkpoint: {path} does not contain this network: {first_line_of(error)}") from error
    return str(path)
