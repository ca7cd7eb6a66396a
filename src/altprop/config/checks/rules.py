"""Rules for choices that do not work together, each with the nearest choice that does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from altprop.algorithms.context import Capabilities
from altprop.algorithms.fused import FUSED
from altprop.algorithms.graphs import KEY, OFF
from altprop.config.checks.targets import locate, result_type
from altprop.config.project import config_files
from altprop.models.base import FeedForward
from altprop.models.energy import EnergyModel
from altprop.nn.units.base import HardUnit
from altprop.nn.weights.base import Dense
from altprop.problems import Problem, nearest


def check(config: Mapping[str, Any]) -> Iterator[Problem]:
    """The problems of a configuration whose single nodes are all valid."""
    algorithm = config["algorithm"]["_target_"]
    capabilities: Capabilities = getattr(_type(config["algorithm"]), "capabilities", Capabilities())
    name = algorithm.rpartition(".")[2]
    yield from _check_options(config, capabilities, name)
    yield from _check_model(config, capabilities, name)
    yield from _check_units(config, capabilities, name)
    yield from _check_selection(config)
    yield from _check_metrics(config)
    yield from _check_device(config["trainer"])
    yield from _check_start(config)
    if config["trainer"]["cuda_graph"]:
        yield from _check_cuda_graph(config)


def _check_options(config: Mapping[str, Any], capabilities: Capabilities, name: str) -> Iterator[Problem]:
    trainer = config["trainer"]
    options = (
        ("precision", trainer["precision"] in ("bf16", "fp16"), capabilities.amp, "fp32"),
        ("compile", trainer["compile"], capabilities.compile, "false"),
        ("cuda_graph", trainer["cuda_graph"], capabilities.cuda_graph, "false"),
        ("accumulate", trainer["accumulate"] > 1, capabilities.accumulate, "1"),
        ("clip_norm", trainer["clip_norm"] is not None, capabilities.clip, "null"),
        ("probe_every", trainer["probe_every"] is not None, capabilities.probe, "null"),
    )
    for option, switched_on, supported, off in options:
        if switched_on and not supported:
            value = trainer[option]
            yield Problem(f"trainer.{option}", f"{value} is not supported by {name}", f"only {off} is", f"trainer.{option}={off}")
    weights = config["algorithm"].get("weights")
    if weights is None:
        return
    kind, rule = _type(weights) or Dense, weights["_target_"].rpartition(".")[2]
    if not capabilities.weights_rules and not issubclass(kind, Dense):
        yield Problem("algorithm.weights", f"{name} does not support {rule}", "only dense weights", "algorithm/weights=dense")
    elif capabilities.freezes and getattr(kind, "moves", False):
        description = f"{rule} changes weights outside of updates, even in blocks that {name} has frozen"
        allowed = "a rule that changes weights only in updates: dense, static_sparse, tied, binary"
        yield Problem("algorithm.weights", description, allowed, "algorithm/weights=static_sparse")


def _check_model(config: Mapping[str, Any], capabilities: Capabilities, name: str) -> Iterator[Problem]:
    model = _type(config["model"])
    if model is None:
        return
    if capabilities.needs_blocks and not issubclass(model, FeedForward):
        yield Problem(
            "model", f"{model.__name__} has no blocks, and {name} trains block by block", "any feed-forward model", "model=mlp"
        )
    if capabilities.needs_energy and not issubclass(model, EnergyModel):
        energy = [choice for choice in _choices("model") if _is_energy(choice)]
        allowed = f"an energy-based model{': ' + ', '.join(energy) if energy else ''}"
        yield Problem(
            "model", f"{model.__name__} has no energy, and {name} needs one", allowed, f"model={energy[0]}" if energy else ""
        )
    if not capabilities.needs_energy and issubclass(model, EnergyModel):
        yield Problem(
            "model", f"{model.__name__} is energy-based, and {name} cannot train it", "any feed-forward model", "model=mlp"
        )


def _check_units(config: Mapping[str, Any], capabilities: Capabilities, name: str) -> Iterator[Problem]:
    hard = [(key, kind) for key, kind in _nodes("model", config["model"]) if kind is not None and issubclass(kind, HardUnit)]
    estimator = config["algorithm"].get("estimator")
    if not hard and capabilities.needs_hard_units:
        choices = sorted(filter(_is_hard, _choices("model/units")), key=lambda choice: (choice != "sign_step", choice))
        allowed = f"hard units{': ' + ', '.join(choices) if choices else ''}"
        fix = f"model/units={choices[0]}" if choices else ""
        yield Problem("model.units", f"the model has no hard units, and {name} needs them", allowed, fix)
    if not hard or estimator is not None or capabilities.native_hard_units:
        return
    choices = sorted(set(_choices("algorithm/estimator")) - {"none"}, key=lambda choice: (choice != "saturated_ste", choice))
    fix = f"algorithm/estimator={choices[0]}" if choices else "model/units=relu"
    for key, kind in hard:
        allowed = f"an estimator ({', '.join(choices)}) or smooth units" if choices else "smooth units"
        description = f"the derivative of {kind.__name__} is zero almost everywhere, so the layers below it would not learn"
        yield Problem(key, description, allowed, fix)


def _check_selection(config: Mapping[str, Any]) -> Iterator[Problem]:
    trainer = config["trainer"]
    if trainer["evaluate_test"] != "always":
        stopping = trainer["early_stopping"] or {"metric": ""}
        for key, metric in (("select_on", trainer["select_on"]), ("early_stopping.metric", stopping["metric"])):
            if metric.partition("/")[0] == "test":
                description = f"{metric}, but trainer.evaluate_test is {trainer['evaluate_test']}"
                yield Problem(f"trainer.{key}", description, "a metric of every evaluation", "trainer.evaluate_test=always")
    data_set = config["dataset"]
    validation = (data_set.get("validation") if isinstance(data_set, Mapping) else None) or {}
    if not isinstance(validation, Mapping) or validation.get("size") or validation.get("file"):
        return
    if trainer["select_on"].partition("/")[0] == "validation":
        description = f"{trainer['select_on']}, but there is no validation split"
        yield Problem("trainer.select_on", description, "auto | test | last", "dataset.validation.size=…")
    stopping = trainer["early_stopping"]
    if stopping is not None and stopping["metric"].startswith("validation/"):
        description = f"{stopping['metric']}, but there is no validation split"
        yield Problem("trainer.early_stopping.metric", description, "train/… or test/…", "dataset.validation.size=…")


def _check_metrics(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Check that selection and early stopping name metrics that the run records."""
    trainer, own = config["trainer"], config.get("metrics") or {}
    known = ["loss", "accuracy", *own]
    names = {"trainer.select_on": trainer["select_on"] if "/" in trainer["select_on"] else None}
    if trainer["early_stopping"] is not None:
        names["trainer.early_stopping.metric"] = trainer["early_stopping"]["metric"]
    for key, value in names.items():
        if value is None:
            continue
        split, _, metric = value.partition("/")
        if metric not in known:
            near = nearest(metric, known)
            description, allowed = f"{value}: there is no metric {metric}", f"{split}/<metric>: {', '.join(known)}"
            yield Problem(key, description, allowed, f"{key}={split}/{near}" if near else f"metrics={metric}")
        elif split == "train" and metric in own and isinstance(locate(own[metric]["_target_"]), type):
            yield Problem(key, f"{value}: classes of torchmetrics are not computed in training", "validation/… or test/…")


def _check_device(trainer: Mapping[str, Any]) -> Iterator[Problem]:
    device, precision = trainer["device"], trainer["precision"]
    if device.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(device.partition(":")[2] or 0)
        if index >= count:
            description = f"{device}, but this machine has {count} usable CUDA devices"
            yield Problem("trainer.device", description, "auto | cpu", "trainer.device=auto")
    if device == "mps" and not torch.backends.mps.is_available():
        yield Problem("trainer.device", "mps, but this machine has no such device", "auto | cpu", "trainer.device=auto")
    if precision == "tf32" and not _on_cuda(trainer):
        yield Problem("trainer.precision", "tf32 needs a CUDA device", "fp32 on other devices", "trainer.precision=fp32")
    if precision == "fp64" and device in ("auto", "mps") and not _on_cuda(trainer) and torch.backends.mps.is_available():
        yield Problem("trainer.precision", "fp64 on mps, which has no float64", "cpu or cuda", "trainer.device=cpu")


def _check_start(config: Mapping[str, Any]) -> Iterator[Problem]:
    """The problem of two files of which the second would replace all weights of the first."""
    weights = config["algorithm"].get("weights") or {}
    if config["model"].get("weights_from") is not None and weights.get("weights_from") is not None:
        description = "is set together with algorithm.weights.weights_from, which replaces all weights"
        yield Problem("model.weights_from", description, "one of the two", "model.weights_from=null")


def _on_cuda(trainer: Mapping[str, Any]) -> bool:
    device = trainer["device"]
    return bool(device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()))


def _check_cuda_graph(config: Mapping[str, Any]) -> Iterator[Problem]:
    """The problems of choices whose steps cannot be captured in a CUDA graph."""
    trainer, optimizer = config["trainer"], config["optimizer"]
    if not _on_cuda(trainer):
        yield Problem(KEY, "true needs a CUDA device", "false on other devices", OFF)
    if trainer["compile"]:
        yield Problem(KEY, "true with trainer.compile", "one of the two", OFF)
    if trainer["precision"] == "fp16":
        yield Problem(KEY, "true with trainer.precision=fp16", "the scale of the loss changes: bf16", "trainer.precision=bf16")
    processes = (config.get("resources") or {}).get("processes", 1)
    if processes != 1:
        yield Problem(KEY, f"true with {processes} processes", "1 process", OFF)
    weights = config["algorithm"].get("weights")
    rule = (weights and _type(weights)) or Dense
    if not getattr(rule, "cuda_graph", False):
        description = f"true with {rule.__name__}, which changes the weights between steps"
        yield Problem(KEY, description, "weights whose structure is fixed: dense, static_sparse, tied, binary, n_of_m", OFF)
    kind = _type(optimizer)
    if kind is not None and kind not in FUSED:
        names = ", ".join(each.__name__ for each in FUSED)
        yield Problem("optimizer._target_", f"{kind.__name__} with {KEY}=true", f"a fused optimizer: {names}", "optimizer=adam")
    elif optimizer.get("fused") is False or optimizer.get("foreach") or optimizer.get("differentiable"):
        name = next(name for name in ("foreach", "differentiable", "fused") if optimizer.get(name) is not None)
        yield Problem(f"optimizer.{name}", f"{optimizer[name]} with {KEY}=true", "fused", f"~optimizer.{name}")


def _type(node: Any) -> type | None:
    target = locate(node["_target_"]) if isinstance(node, Mapping) and "_target_" in node else None
    return result_type(target) if target is not None else None


def _nodes(key: str, node: Any) -> Iterator[tuple[str, type | None]]:
    """Every node below ``key`` and the class that it builds."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            if isinstance(child, Mapping) and "_target_" in child:
                yield f"{key}.{name}", _type(child)
            yield from _nodes(f"{key}.{name}", child)
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _nodes(f"{key}[{index}]", child)


def _choices(group: str) -> list[str]:
    return sorted(file.stem for file in config_files(group))


def _target_in(group: str, choice: str) -> type | None:
    content = OmegaConf.load(next(file for file in config_files(group) if file.stem == choice))
    target = content.get("_target_") if isinstance(content, DictConfig) else None
    return _type({"_target_": target}) if target is not None else None


def _is_energy(choice: str) -> bool:
    kind = _target_in("model", choice)
    return kind is not None and issubclass(kind, EnergyModel)


def _is_hard(choice: str) -> bool:
    kind = _target_in("model/units", choice)
    return kind is not None and issubclass(kind, HardUnit)
