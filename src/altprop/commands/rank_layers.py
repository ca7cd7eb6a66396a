"""The tasks ``rank_layers`` and ``rank_then_train``: rank layers by finished sensitivity runs, then train in that order."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altprop.config.key import run_key
from altprop.config.restore import read_config
from altprop.files import read_json, write_json
from altprop.nn.weights.binary.orders import FROM_SENSITIVITY
from altprop.problems import ConfigError, Problem
from altprop.program import command
from altprop.reporting.figures.binarization import draw_sensitivity
from altprop.reporting.sensitivity import SensitivityRun, ascending_order, mean_accuracies, read_sensitivity
from altprop.tracking.metrics_file import JSON_NAME, read_metrics
from altprop.tracking.status_file import read_status
from altprop.training.parts import Parts
from altprop.training.run import train

log = logging.getLogger(__name__)

ORDER_FILE = "order.json"


def rank_layers(parts: Parts) -> Path:
    """Rank the layers by the finished runs with the name and configuration of ``parts``, for any layer order and seed.

    Writes ``order.json``, whose path is returned, and ``sensitivity.png`` next to the runs. Raises ``ConfigError`` if a layer has
    no finished run.
    """
    folder = parts.outputs / parts.name
    return _rank(parts, folder, folder / ORDER_FILE, _settings(parts.config))


def rank_then_train(parts: Parts) -> Mapping[str, Any]:
    """Rank the layers by the runs next to ``algorithm.weights.order_file``, write that file, and train in its order.

    Raises ``ConfigError`` if the order does not come from a file, a layer has no finished run, or the runs differ in more than
    layer and seed.
    """
    weights = parts.config["algorithm"].get("weights") or {}
    if weights.get("order") != FROM_SENSITIVITY:
        description = f"is {weights.get('order')}, but task=rank_then_train determines an order"
        raise ConfigError([Problem("algorithm.weights.order", description, FROM_SENSITIVITY, "task=train")])
    file = Path(weights["order_file"]).absolute()
    _rank(parts, file.parent, file, None)
    return train(parts)


def _rank(parts: Parts, folder: Path, file: Path, settings: str | None) -> Path:
    key = "task"
    runs = list(_finished(folder, settings))
    if not runs:
        description = f"{folder} holds no finished run" + ("" if settings is None else " of this configuration")
        fix = f"{command('train')} -m sweep=iterative/<net>_sensitivity"
        raise ConfigError([Problem(key, description, "one finished run per layer", fix)])
    if len({run.settings for run in runs}) > 1:
        description = f"the runs in {folder} differ in more than layer and seed"
        fix = "experiment=iterative/<net>_sens <overrides> task=rank_layers, then train with task=train"
        raise ConfigError([Problem(key, description, "runs of one configuration", fix)])
    means = mean_accuracies([run.result for run in runs])
    if missing := [str(place) for place, mean in enumerate(means.values(), start=1) if mean is None]:
        description = f"{folder} holds no finished run for the layers {', '.join(missing)}"
        name = folder.relative_to(parts.outputs) if folder.is_relative_to(parts.outputs) else "<paper>/<net>_sens"
        fix = f"{command('train')} -m experiment={name} algorithm.weights.order={','.join(missing)}"
        raise ConfigError([Problem(key, description, "one finished run per layer", fix)])
    return _write(file, runs, {name: mean for name, mean in means.items() if mean is not None})


@dataclass(frozen=True)
class _Run:
    key: str
    settings: str
    result: SensitivityRun


def _finished(folder: Path, settings: str | None) -> Iterator[_Run]:
    """The finished runs in ``folder``, only those with ``settings`` unless that is None, by key."""
    for directory in sorted(path.parent for path in folder.glob("*/config.yaml")):
        if (read_status(directory) or {}).get("status") != "done":
            log.warning("skipped: %s is not finished", directory)
            continue
        own = _settings(read_config(directory))
        if settings in (None, own):
            try:
                yield _Run(directory.name, own, read_sensitivity(read_metrics(directory / JSON_NAME)))
            except ValueError as error:
                raise ConfigError([Problem("task", f"{directory} {error}", "a sensitivity run")]) from None


def _settings(config: Mapping[str, Any]) -> str:
    """The key of ``config`` without order and seed, which runs over layers and seeds share."""
    common = copy.deepcopy(dict(config))
    common["seed"] = None
    weights = common["algorithm"].get("weights") or {}
    for name in ("order", "reverse", "order_file"):
        weights.pop(name, None)
    return run_key(common)


def _write(file: Path, runs: list[_Run], means: Mapping[str, float]) -> Path:
    layers, values, metric = list(means), list(means.values()), runs[0].result.metric
    order = ascending_order(values)
    if (before := (read_json(file) or {}).get("order")) not in (None, list(order)):
        log.warning("the order was %s before: a run that started with it keeps it; resume=false starts it over", before)
    write_json(
        file,
        {
            "order": list(order),
            "layers": layers,
            "metric": metric,
            "statistic": "best epoch, mean over runs",
            "accuracy": values,
            "runs": {name: [run.key for run in runs if run.result.binary == name] for name in layers},
        },
    )
    draw_sensitivity(layers, values, file.parent / "sensitivity.png", metric=metric)
    if not metric.startswith("validation"):
        log.warning("there is no validation split: the layers are ranked by the TEST SPLIT")
    for rank, place in enumerate(order, start=1):
        log.info("%2d. layer %d %s: best %s %.2f", rank, place, layers[place - 1], metric, values[place - 1])
    log.info("order written to %s", file)
    return file
