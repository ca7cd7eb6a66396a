"""The documentation's code runs, and what it points to exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_reported_row_in_the_readme_has_a_published_number() -> None:
    """The README promises a number of the paper, and says how many rows have one."""
    readme = (ROOT / "README.md").read_text()
    (pattern,) = re.findall(r"python report\.py runs='([^']+)' .*next to the paper's number", readme)
    assert f"python train.py -m sweep={pattern}\n" in readme
    stored = json.loads((ROOT / "tests" / "config" / "stored" / "experiments.json").read_text())
    published = [name for name, entry in stored.items() if isinstance(entry["changes"].get("paper.value"), (int, float))]
    assert pattern in published
    assert f"{len(published)} rows have a published" in " ".join(readme.split())
