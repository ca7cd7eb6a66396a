"""Imports run downwards, as docs/design.md says; only ``config`` knows Hydra."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "altprop"
LEVELS = [
    {"problems", "files", "seeding", "_torchvision"},
    {"nn", "data", "models", "tracking"},
    {"reporting"},
    {"algorithms"},
    {"training"},
    {"config"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in LEVEL)


def imported(path: Path) -> set[str]:
    """Dotted names of every module that ``path`` imports, inside functions too, but not for type checkers only."""
    names = set()
    tree = ast.parse(path.read_text())
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imported(path):
        if name.startswith("altprop."):
            other = name.split(".")[1]
            assert LEVEL.get(other, 0) <= LEVEL[own], f"{own} imports {name}"
        if own != "config":
            assert name.split(".")[0] not in ("hydra", "omegaconf"), f"{own} imports {name}"
