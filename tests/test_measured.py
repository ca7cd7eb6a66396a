"""Accuracies in the documents are those of docs/results/measured.json, which docs/results/measure.py makes from runs."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from altprop.config.project import CONF, ROOT

SCRIPT = ROOT / "docs" / "results" / "measure.py"
MEASURE: dict[str, Any] = runpy.run_path(str(SCRIPT))
STORE: dict[str, Any] = MEASURE["read_store"]()
EXPERIMENTS = {file.relative_to(CONF / "experiment").with_suffix("").as_posix() for file in (CONF / "experiment").rglob("*.yaml")}
QUICK = {name.rpartition("/")[2] for name in EXPERIMENTS if "/quick_" in name}
ACCURACY = re.compile(r"(?<![\d.])\d{2}\.\d{1,2}(?: ± \d+\.\d+|(?=, \d{2}\.\d)| ?%)")
REFRESH = f"python {SCRIPT.relative_to(ROOT)} --write"


def passages(text: str) -> Iterator[str]:
    """The paragraphs of a document and the rows of its tables, without the columns of published numbers."""
    for block in re.split(r"\n\s*\n", text):
        lines = block.splitlines()
        if not block.lstrip().startswith("|"):
            yield block
            continue
        published = {index for index, cell in enumerate(lines[0].split("|")) if "published" in cell}
        for line in lines:
            yield " | ".join(cell for index, cell in enumerate(line.split("|")) if index not in published)


@pytest.mark.parametrize("document", MEASURE["DOCUMENTS"], ids=lambda path: path.name)
def test_documents_show_what_was_measured(document: Path) -> None:
    text = document.read_text()
    unknown = [match["id"] for match in MEASURE["marked"](text) if match["id"] not in STORE]
    assert unknown == [], f"not measured: python {SCRIPT.relative_to(ROOT)} '<id>'"
    assert MEASURE["documented"](text, STORE) == text, f"made by hand, or measured again: {REFRESH}"


@pytest.mark.parametrize("document", MEASURE["DOCUMENTS"], ids=lambda path: path.name)
def test_every_accuracy_next_to_an_experiment_is_a_measured_one(document: Path) -> None:
    text = MEASURE["TABLE"].sub("", document.read_text())
    by_hand = []
    for passage in passages(text):
        words = MEASURE["MARKER"].sub("", passage)
        named = {*re.findall(r"\b[a-z]\w*/[a-z]\w*", words)} & EXPERIMENTS or {*re.findall(r"\bquick_\w+", words)} & QUICK
        if named and (accuracies := ACCURACY.findall(words)):
            by_hand.append((sorted(named), accuracies))
    assert by_hand == [], "mark these numbers as <!-- measured: <id> -->…<!-- end --> (docs/results/measure.py)"


def test_the_stored_entries_say_how_they_were_measured() -> None:
    for name, entry in STORE.items():
        assert name.split()[0] in EXPERIMENTS
        assert {"threads", "device", "torch", "commit", "command", "seeds"} <= entry.keys(), name
        values = entry.get("values")
        assert values is not None or entry["count"], name
        assert all(len(each) == len(entry["seeds"]) for each in (values or {}).values()), name


def test_a_number_made_by_hand_is_found() -> None:
    entry = {"values": {"test/accuracy": [90.0, 92.0]}, "seeds": [0, 1]}
    text = "`quick_x` reaches <!-- measured: a/quick_x -->95.7<!-- end --> %, <!-- measured: a/quick_x; values -->?<!-- end -->"
    assert MEASURE["documented"](text, {"a/quick_x": entry}) == (
        "`quick_x` reaches <!-- measured: a/quick_x -->91.0 ± 1.4<!-- end --> %, "
        "<!-- measured: a/quick_x; values -->90.0, 92.0<!-- end -->"
    )
    assert ACCURACY.findall("quick_x gave 95.7 %, and 94.5 ± 0.3 or 93.1, 94.2") == ["95.7 %", "94.5 ± 0.3", "93.1"]
