"""Imports point downwards and never form circles, including imports inside functions; see docs/design.md."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "altprop"
ROOMS = [
    {
        *("problems", "faults", "files", "keys", "tensor_file", "yaml_files", "seeding", "names", "program", "fonts", "ranges"),
        *("code_state", "code_identity", "_torchvision", "checkpoint_files", "allocator"),
    },
    {"nn", "data", "models", "tracking", "estimators", "heads", "losses", "units", "weights"},
    {"reporting"},
    {"algorithms"},
    {"training"},
    {"config"},
    {"sweeping"},
    {"commands", "tasks"},
    {"__main__", "api"},
    {"testing"},
]
LEVEL = {name: level for level, names in enumerate(ROOMS) for name in names}
CONFIG = [
    {
        *("project", "enumerated", "key", "plain", "typed", "quoting", "schema", "command_settings", "compose", "resolvers"),
        *("environment", "sources", "trust"),
    },
    {"checks"},
    {"extend", "restore"},
    {"build"},
]
"""The order inside the room ``config``."""
CONFIG_LEVEL = {name: level for level, names in enumerate(CONFIG) for name in names}
FILES = {
    ".".join(("altprop", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or path.stem in LEVEL
}
DATA_FOLDERS = ("files", "loading", "sets")
"""Folders of the room data, lowest first; modules next to them may be imported by all."""
HYDRA = ("config", "sweeping", "commands")
"""The rooms that may import Hydra and OmegaConf."""


def imported(path: Path) -> set[str]:
    """Dotted names of everything that ``path`` imports, also inside functions, except imports for type checkers."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("module", FILES)
def test_imports_point_downwards(module: str) -> None:
    room = module.split(".")[1]
    for name in imported(FILES[module]):
        if name.startswith("altprop."):
            assert LEVEL[name.split(".")[1]] <= LEVEL[room], f"{module} imports {name}"
        if room not in HYDRA:
            assert name.split(".")[0] not in ("hydra", "omegaconf"), f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in FILES if re.match(r"altprop\.data\.(files|loading|sets)\.", name)])
def test_data_folders_import_downwards(module: str) -> None:
    level = DATA_FOLDERS.index(module.split(".")[2])
    for name in imported(FILES[module]):
        target = name.removeprefix("altprop.data.").split(".")[0]
        if name.startswith("altprop.data.") and target in DATA_FOLDERS:
            assert DATA_FOLDERS.index(target) <= level, f"{module} imports {name}"


def test_the_order_inside_config() -> None:
    for module, path in FILES.items():
        if module.startswith("altprop.config."):
            level = CONFIG_LEVEL[module.split(".")[2]]
            names = {name.split(".")[2] for name in imported(path) if name.startswith("altprop.config.")}
            assert all(CONFIG_LEVEL[name] <= level for name in names), f"{module} imports {names}"


def test_no_circles() -> None:
    graph = {}
    for module, path in FILES.items():
        targets = {name if name in FILES else name.rpartition(".")[0] for name in imported(path)}
        graph[module] = {target for target in targets if target in FILES and target != module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
