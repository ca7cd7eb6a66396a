"""The tasks ``rank_layers`` and ``rank_then_train``: from finished sensitivity runs to an order, and on to the training in it."""

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
from altprop.reporting.figures.binarization import draw_sensitivity
from altprop.reporting.sensitivity import SensitivityRun, ascending_order, mean_accuracies, read_sensitivity
from altprop.tracking.metrics_file import JSON_NAME, read_metrics
from altprop.training.parts import Parts
from altprop.training.run import train

log = logging.getLogger(__name__)

ORDER_FILE = "order.json"


def rank_layers(parts: Parts) -> Path:
    """Rank the layers by the finished runs of ``parts``'s name and configuration, whatever their order of layers and their seed.

    Writes ``order.json``, whose path is returned, and ``sensitivity.png`` beside the runs. Raises ``ConfigError`` where a layer
    has no finished run.
    """
    folder = parts.outputs / parts.name
    return _rank(parts, folder, folder / ORDER_FILE, _settings(parts.config))


def rank_then_train(parts: Parts) -> Mapping[str, Any]:
    """Rank the layers by the runs beside ``algorithm.weights.order_file``, write that file, and train in its order.

    Raises ``ConfigError`` where the order does not come from a file, a layer has no finished run, or the runs differ in more
    than layer and seed.
    """
    weights = parts.config["algorithm"].get("weights") or {}
    if weights.get("order") != FROM_SENSITIVITY:
        given = f"is {weights.get('order')}, but task=rank_then_train determines an order"
        raise ConfigError([Problem("algorithm.weights.order", given, FROM_SENSITIVITY, "task=train")])
    file = Path(weights["order_file"]).absolute()
    _rank(parts, file.parent, file, None)
    return train(parts)


def _rank(parts: Parts, folder: Path, file: Path, wanted: str | None) -> Path:
    key = "task"
    found = list(_finished(folder, wanted))
    if not found:
        given = f"{folder} holds no finished run" + ("" if wanted is None else " of this configuration")
        fix = "python train.py -m sweep=iterative/<net>_sensitivity"
        raise ConfigError([Problem(key, given, "one finished run per layer", fix)])
    if len({run.settings for run in found}) > 1:
        given = f"the runs in {folder} differ in more than layer and seed"
        fix = "experiment=iterative/<net>_sens <overrides> task=rank_layers, then train with task=train"
        raise ConfigError([Problem(key, given, "runs of one configuration", fix)])
    means = mean_accuracies([run.said for run in found])
    if missing := [str(place) for place, mean in enumerate(means.values(), start=1) if mean is None]:
        given = f"{folder} holds no finished run for the layers {', '.join(missing)}"
        name = folder.relative_to(parts.outputs) if folder.is_relative_to(parts.outputs) else "<paper>/<net>_sens"
        fix = f"python train.py -m experiment={name} algorithm.weights.order={','.join(missing)}"
        raise ConfigError([Problem(key, given, "one finished run per layer", fix)])
    return _write(file, found, {name: mean for name, mean in means.items() if mean is not None})


@dataclass(frozen=True)
class _Run:
    key: str
    settings: str
    said: SensitivityRun


def _finished(folder: Path, wanted: str | None) -> Iterator[_Run]:
    """The finished runs in ``folder``, of the settings ``wanted`` or of any, by key."""
    for directory in sorted(path.parent for path in folder.glob("*/config.yaml")):
        if (read_json(directory / "status.json") or {}).get("status") != "done":
            log.warning("passed over: %s is not finished", directory)
            continue
        settings = _settings(read_config(directory))
        if wanted is None or settings == wanted:
            try:
                yield _Run(directory.name, settings, read_sensitivity(read_metrics(directory / JSON_NAME)))
            except ValueError as error:
                raise ConfigError([Problem("task", f"{directory} {error}", "a sensitivity run")]) from None


def _settings(config: Mapping[str, Any]) -> str:
    """What runs over layers and seeds have in common: the key of ``config`` without order and seed."""
    common = copy.deepcopy(dict(config))
    common["seed"] = None
    weights = common["algorithm"].get("weights") or {}
    for name in ("order", "reverse", "order_file"):
        weights.pop(name, None)
    return run_key(common)


def _write(file: Path, runs: list[_Run], means: Mapping[str, float]) -> Path:
    layers, values, metric = list(means), list(means.values()), runs[0].said.metric
    order = ascending_order(values)
    if (before := (read_json(file) or {}).get("order")) not in (None, list(order)):
        log.warning("the order was %s before: a run that began with it keeps it; resume=false starts it anew", before)
    write_json(
        file,
        {
            "order": list(order),
            "layers": layers,
            "metric": metric,
            "statistic": "best epoch, mean over runs",
            "accuracy": values,
            "runs": {name: [run.key for run in runs if run.said.binary == name] for name in layers},
        },
    )
    draw_sensitivity(layers, values, file.parent / "sensitivity.png", metric=metric)
    if not metric.startswith("validation"):
        log.warning("there is no validation split: the layers are ranked by the TEST SPLIT")
    for rank, place in enumerate(order, start=1):
        log.info("%2d. layer %d %s: best %s %.2f", rank, place, layers[place - 1], metric, values[place - 1])
    log.info("order written to %s", file)
    return file
