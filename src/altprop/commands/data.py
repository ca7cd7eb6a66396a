"""The command ``data.py``: list, fetch, look at and unpack data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from altprop.config.checks.targets import locate
from altprop.config.checks.validation import problems_of_node
from altprop.config.project import config_files
from altprop.problems import ConfigError, Problem, nearest


def run(config: DictConfig) -> None:
    """Run ``config.action``. Raises ConfigError with every problem found."""
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    action = ACTIONS.get(plain["action"])
    if action is None:
        near = nearest(str(plain["action"]), ACTIONS)
        fix = f"action={near}" if near else ""
        raise ConfigError([Problem("action", f"is {plain['action']!r}", f"one of {', '.join(ACTIONS)}", fix)])
    action(plain, Path(plain["paths"]["data"]).absolute())


def _data_set(config: Mapping[str, Any], *, present: bool) -> Any:
    """Build the configured data set. If ``present``, its files must exist."""
    if config.get("dataset") is None:
        raise ConfigError([Problem("dataset", "is not set", "a choice of the group dataset", "dataset=…")])
    problems = problems_of_node("dataset", config["dataset"], config)
    if not present:
        problems = [problem for problem in problems if problem.key != "dataset"]
    if problems:
        raise ConfigError(problems)
    return instantiate(config["dataset"], _convert_="all")


def _list(config: Mapping[str, Any], root: Path) -> None:
    print(f"data sets in {root}")
    for path in sorted(config_files("dataset"), key=lambda file: file.stem):
        node: Any = OmegaConf.to_container(OmegaConf.load(path))
        if node.get("_target_", "???") == "???":  # the class is left to the user
            continue
        check: Any = getattr(locate(str(node.get("_target_"))), "check", None)  # a data set of another package need not have one
        problems = [problem for problem in check(node, config) if problem.key == "dataset"] if check is not None else []
        state = f"missing   {problems[0].fix}" if problems else "available"
        title = path.read_text().partition("\n")[0].lstrip("# ").partition(":  ")[0].partition(": no download")[0]
        print(f"  {path.stem:<14} {state}\n  {'':<14} {title}")


def _fetch(config: Mapping[str, Any], root: Path) -> None:
    from altprop.data.fetch import fetch

    data_set = _data_set(config, present=False)
    fetched = fetch(data_set, config["dataset"], root)
    print(f"{data_set.display_name}: {'fetched to' if fetched else 'already in'} {root}")


def _sheet(config: Mapping[str, Any], root: Path) -> None:
    import torch

    from altprop.data.base import LoadContext
    from altprop.data.sheet import draw_sheet

    data_set = _data_set(config, present=True)
    data = data_set.load(LoadContext(root, torch.device("cpu"), config["seed"]))
    print(draw_sheet(data, data_set.mean, data_set.std, Path(config["file"]).absolute()))


def _unpack_imagenet(config: Mapping[str, Any], root: Path) -> None:
    from altprop.data.files.unpack import unpack_imagenet
    from altprop.data.loading.decoding import num_workers

    problems = []
    for key, minimum in (("resize", 1), ("workers", 1)):
        value = config[key]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < minimum):
            problems.append(Problem(key, f"is {value!r}", f"an integer, {minimum} or more, or null"))
    if problems:
        raise ConfigError(problems)
    folder = root / config["folder"]
    archives = Path(config["archives"]).absolute()
    train, val = unpack_imagenet(archives, folder, config["resize"], num_workers(config["workers"]))
    print(f"{folder}: {train:,} training images, {val:,} validation images")


ACTIONS: dict[str, Callable[[Mapping[str, Any], Path], None]] = {
    "list": _list,
    "fetch": _fetch,
    "sheet": _sheet,
    "unpack_imagenet": _unpack_imagenet,
}
