"""``data.py``: fetch, list, look at and unpack data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from altprop.config.checks.targets import locate
from altprop.config.checks.validation import problems_of_node
from altprop.config.project import CONF
from altprop.problems import ConfigError, Problem, nearest


def run(config: DictConfig) -> None:
    """Do what ``config.action`` says. Raises ConfigError with every problem."""
    given: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    action = ACTIONS.get(given["action"])
    if action is None:
        near = nearest(str(given["action"]), ACTIONS)
        fix = f"action={near}" if near else ""
        raise ConfigError([Problem("action", f"is {given['action']!r}", f"one of {', '.join(ACTIONS)}", fix)])
    action(given, Path(given["paths"]["data"]).absolute())


def _data_set(given: Mapping[str, Any], *, present: bool) -> Any:
    """The chosen data set; with ``present`` its files must be there."""
    if given.get("dataset") is None:
        raise ConfigError([Problem("dataset", "is not set", "a choice of the group dataset", "dataset=…")])
    problems = problems_of_node("dataset", given["dataset"], given)
    if not present:
        problems = [problem for problem in problems if problem.key != "dataset"]
    if problems:
        raise ConfigError(problems)
    return instantiate(given["dataset"], _convert_="all")


def _list(given: Mapping[str, Any], root: Path) -> None:
    print(f"data sets below {root}")
    for path in sorted((CONF / "dataset").glob("*.yaml")):
        node: Any = OmegaConf.to_container(OmegaConf.load(path))
        cls: Any = locate(node["_target_"])
        problems = [problem for problem in cls.check(node, given) if problem.key == "dataset"]
        state = f"missing   {problems[0].fix}" if problems else "there"
        title = path.read_text().partition("\n")[0].lstrip("# ").partition(":  ")[0].partition(": no download")[0]
        print(f"  {path.stem:<14} {state}\n  {'':<14} {title}")


def _fetch(given: Mapping[str, Any], root: Path) -> None:
    from altprop.data.files.fetch import fetch

    data_set = _data_set(given, present=False)
    fetched = fetch(data_set, given["dataset"], root)
    print(f"{data_set.described}: {'fetched' if fetched else 'already there'}, below {root}")


def _sheet(given: Mapping[str, Any], root: Path) -> None:
    import torch

    from altprop.data.base import LoadContext
    from altprop.data.sheet import draw_sheet

    data_set = _data_set(given, present=True)
    data = data_set.load(LoadContext(root, torch.device("cpu"), given["seed"]))
    print(draw_sheet(data, data_set.mean, data_set.std, Path(given["file"]).absolute()))


def _unpack_imagenet(given: Mapping[str, Any], root: Path) -> None:
    from altprop.data.files.unpack import unpack_imagenet
    from altprop.data.loading.stream import num_workers

    problems = []
    for key, least in (("resize", 1), ("workers", 1)):
        value = given[key]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            problems.append(Problem(key, f"is {value!r}", f"a whole number from {least} on, or null"))
    if problems:
        raise ConfigError(problems)
    folder = root / given["folder"]
    archives = Path(given["archives"]).absolute()
    train, val = unpack_imagenet(archives, folder, given["resize"], num_workers(given["workers"]))
    print(f"{folder}: {train:,} training images, {val:,} validation images")


ACTIONS: dict[str, Callable[[Mapping[str, Any], Path], None]] = {
    "list": _list,
    "fetch": _fetch,
    "sheet": _sheet,
    "unpack_imagenet": _unpack_imagenet,
}
