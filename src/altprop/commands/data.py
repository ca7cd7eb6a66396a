"""The command ``data.py``: list, fetch, look at, check and unpack data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from altprop.config.checks.targets import locate
from altprop.config.checks.validation import problems_of_node
from altprop.config.project import config_files
from altprop.problems import ConfigError, Problem, nearest, on_one_line


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


def _check(config: Mapping[str, Any], root: Path) -> None:
    """Print what the data set contains. Raises ConfigError with every file and folder that cannot be used."""
    import torch

    from altprop.data.base import LoadContext
    from altprop.data.loading.decoding import num_workers
    from altprop.data.sets.image_folder import MIB
    from altprop.data.sets.streamed import Streamed
    from altprop.data.survey import survey_data, survey_folder

    data_set = _data_set(config, present=True)
    workers = num_workers(_workers(config))
    if isinstance(data_set, Streamed) and data_set.splits:
        folder, limit = root / str(getattr(data_set, "folder", "")), getattr(data_set, "memory_limit", 0) * MIB
        survey = survey_folder(folder, data_set.splits, data_set.crops, limit, workers, dali=data_set.loader == "dali")
    else:
        survey = survey_data(data_set.load(LoadContext(root, torch.device("cpu"), config["seed"])))
    for line in (f"{getattr(data_set, 'display_name', 'data set')} in {root}", *survey.lines()):
        print(on_one_line(line))
    if survey.errors:
        raise ConfigError(problem for error in survey.errors for problem in error.problems)
    print("every image can be used")


def _workers(config: Mapping[str, Any]) -> int | None:
    """The number of workers. Raises ConfigError if it is out of range."""
    if problem := _integer_problem(config, "workers"):
        raise ConfigError([problem])
    return config["workers"]


def _integer_problem(config: Mapping[str, Any], key: str) -> Problem | None:
    value = config[key]
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return None
    return Problem(key, f"is {value!r}", "an integer, 1 or more, or null")


def _unpack_imagenet(config: Mapping[str, Any], root: Path) -> None:
    from altprop.data.files.unpack import unpack_imagenet
    from altprop.data.loading.decoding import num_workers

    if problems := [problem for key in ("resize", "workers") if (problem := _integer_problem(config, key))]:
        raise ConfigError(problems)
    folder = root / config["folder"]
    archives = Path(config["archives"]).absolute()
    train, val = unpack_imagenet(archives, folder, config["resize"], num_workers(config["workers"]))
    print(f"{folder}: {train:,} training images, {val:,} validation images")


ACTIONS: dict[str, Callable[[Mapping[str, Any], Path], None]] = {
    "list": _list,
    "fetch": _fetch,
    "sheet": _sheet,
    "check": _check,
    "unpack_imagenet": _unpack_imagenet,
}
