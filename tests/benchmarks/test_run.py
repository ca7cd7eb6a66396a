"""``benchmarks/run.py --quick`` runs a small version of every benchmark. Its numbers are meaningless and not tested."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reporting import BEGIN, END
from run import NAMES

ROOT = Path(__file__).resolve().parents[2]

# one group: the fixture takes a minute, and every worker that runs one of these tests would set it up again
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("benchmarks")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the quick run has written ``result.json``, ``result.md`` and the tables of ``page.md``."""
    folder = tmp_path_factory.mktemp("benchmarks")
    (folder / "page.md").write_text(f"# before\n\n{BEGIN}\n{END}\n\nafter\n")
    command = [sys.executable, "benchmarks/run.py", "--quick", "--json", folder / "result.json", "--document", folder / "page.md"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"[1/{len(NAMES)}] {NAMES[0]}" in done.stdout
    return folder


@pytest.fixture(scope="module")
def sections(folder: Path) -> dict[str, dict[str, Any]]:
    return {section["benchmark"]: section for section in json.loads((folder / "result.json").read_text())}


def test_every_benchmark_has_its_command_and_machine(sections: dict[str, dict[str, Any]]) -> None:
    assert tuple(sections) == NAMES
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\ndef rows(" in path.read_text()}
    assert scripts == set(NAMES)
    for section in sections.values():
        assert section["arguments"]
        assert {"torch", "threads", "clock", "processor", "commit", "load", "date"} <= section["machine"].keys()
        assert section["rows"]


def test_every_row_has_a_baseline_and_a_limit(sections: dict[str, dict[str, Any]]) -> None:
    for section in sections.values():
        names = [(row["what"], row["baseline"], row["measure"]) for row in section["rows"]]
        assert len(set(names)) == len(names)
        for row in section["rows"]:
            assert row["what"]
            assert row["baseline"]
            assert math.isfinite(row["ratio"])
            assert row["ratio"] > 0
            assert row["limit"]["bound"] in ("at most", "at least")
            assert row["limit"]["reason"]
            assert math.isfinite(row["limit"]["value"])
            if row["quartiles"] is not None:
                assert row["quartiles"][0] <= row["ratio"] <= row["quartiles"][1]
            if row["memory"] is not None:
                assert 0.01 < row["memory"] < 100


def test_every_algorithm_and_weights_rule_is_measured(sections: dict[str, dict[str, Any]]) -> None:
    measured = {row["what"].partition(",")[0] for row in sections["algorithm_step"]["rows"]}
    named = {path.stem for path in (ROOT / "conf" / "algorithm").glob("*.yaml")}
    rules = {path.stem for path in (ROOT / "conf" / "algorithm" / "weights").glob("*.yaml")}
    assert named - {"backprop", "other"} | rules - {"dense", "other"} == measured


def test_the_tables_are_in_the_document(folder: Path) -> None:
    text = (folder / "page.md").read_text()
    assert text.startswith("# before\n\n")
    assert text.endswith("\n\nafter\n")
    assert [line.removeprefix("### ") for line in text.splitlines() if line.startswith("### ")] == list(NAMES)
    assert (folder / "result.md").read_text().strip() in text
    assert (folder / "figures" / "scaling.png").is_file()
