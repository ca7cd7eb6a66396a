"""Accuracies in the documents are those of docs/results/measured.json, which docs/results/measure.py makes from runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from altprop.config.project import CONF, ROOT

SCRIPT = ROOT / "docs" / "results" / "measure.py"
MEASURE: dict[str, Any] = runpy.run_path(str(SCRIPT))
STORE: dict[str, Any] = MEASURE["read_store"]()
EXPERIMENTS = {file.relative_to(CONF / "experiment").with_suffix("").as_posix() for file in (CONF / "experiment").rglob("*.yaml")}
CARDS = sorted({*MEASURE["DOCUMENTS"], *(CONF / "experiment").rglob("*.yaml"), *(CONF / "sweep").rglob("*.yaml")})
TABLE_TOPIC = re.compile(r"accura|test split|test digits", re.I)
TOPIC = re.compile(r"accura|test split|test digits|\breach(?:es|ed)?\b|\bseeds? \d", re.I)
NOT_OURS = re.compile(r"<!-- not ours -->.*?<!-- end -->", re.S)
NUMBER = r"(?<![\w.@/=+-])(?:\d\d(?:\.\d{1,2})?|100(?:\.0+)?)(?![\w.])"
ACCURACY = re.compile(
    rf"{NUMBER}(?: ± \d+\.\d+)?(?:(?:,| to| and|, and) {NUMBER})*(?: ?%| percent)(?!\s(?:interval|of|dense))|{NUMBER} ± \d+\.\d|"
    r"(?<![\w.@/=+-])\d\d\.\d{1,2}(?=(?:,| and|, and) \d\d\.\d)"
)
CELL = re.compile(r"(?<=\|) *(?:\d\d\.\d+|\d\d %(?! interval))[^|]*(?=\|)")
REFRESH = f"python {SCRIPT.relative_to(ROOT)} --write"


def prose(file: Path) -> str:
    """The text of a document, or the comments above the keys of a configuration."""
    text = file.read_text()
    return text if file.suffix == ".md" else "\n".join(line for line in text.splitlines() if line.startswith("# "))


def unmarked(text: str) -> list[str]:
    """The accuracies in ``text`` that are neither from the store nor said not to be ours.

    A passage is about accuracies if it says so, and a table if its head or the two blocks before it do. Columns and rows named
    published, archived or original are not ours.
    """
    for pattern in (MEASURE["TABLE"], MEASURE["FIELD"], MEASURE["MARKER"], NOT_OURS):
        text = pattern.sub("", text)
    found: list[str] = []
    blocks = re.split(r"\n\s*\n", text)
    for index, block in enumerate(blocks):
        if not block.lstrip().startswith("|"):
            if TOPIC.search(block):
                found += [match[0] for match in ACCURACY.finditer(block)]
            continue
        head, *rows = block.splitlines()
        if TABLE_TOPIC.search("\n".join((*blocks[max(index - 2, 0) : index], head))):
            theirs = {place for place, cell in enumerate(head.split("|")) if re.search(r"published|archived|original", cell)}
            for row in rows:
                cells = "|".join(cell for place, cell in enumerate(row.split("|")) if place not in theirs)
                if not row.startswith("| published"):
                    found += [match[0].strip() for match in CELL.finditer(cells)] or [
                        match[0] for match in ACCURACY.finditer(cells)
                    ]
    return found


@pytest.mark.parametrize("document", MEASURE["DOCUMENTS"], ids=lambda path: path.name)
def test_documents_show_what_was_measured(document: Path) -> None:
    text = document.read_text()
    unknown = [match["id"] for match in MEASURE["marked"](text) if match["id"] not in STORE]
    assert unknown == [], f"not measured: python {SCRIPT.relative_to(ROOT)} '<id>'"
    assert MEASURE["documented"](text, STORE) == text, f"made by hand, or measured again: {REFRESH}"


def test_every_accuracy_is_a_measured_one() -> None:
    by_hand = {str(file.relative_to(ROOT)): found for file in CARDS if (found := unmarked(prose(file)))}
    assert by_hand == {}, "mark these numbers as <!-- measured: <id> -->…<!-- end --> (docs/results/measure.py)"


def test_the_stored_entries_say_how_they_were_measured() -> None:
    for name, entry in STORE.items():
        assert "=" in name.split()[0] or name.split()[0] in EXPERIMENTS, name
        assert {"threads", "device", "torch", "commit", "command", "seeds"} <= entry.keys(), name
        values = entry.get("values")
        assert values or entry.get("ranges") or entry["count"], name
        assert "cpu" in entry or entry["long"], name
        assert all(len(each) == len(entry["seeds"]) for each in (values or {}).values()), name


def test_a_number_made_by_hand_is_found() -> None:
    entry = {"values": {"test/accuracy": [90.0, 92.0]}, "seeds": [0, 1]}
    text = "`quick_x` reaches <!-- measured: a/quick_x -->95.7<!-- end --> %, <!-- measured: a/quick_x; values -->?<!-- end -->"
    assert MEASURE["documented"](text, {"a/quick_x": entry}) == (
        "`quick_x` reaches <!-- measured: a/quick_x -->91.0 ± 1.4<!-- end --> %, "
        "<!-- measured: a/quick_x; values -->90.0, 92.0<!-- end -->"
    )
    assert MEASURE["documented"]("<!-- measured: x; range -->?<!-- end -->", {"x": entry}).count("90.0 to 92.0") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The accuracy of quick_x was 95.7 %, and 94.5 ± 0.3 or 93.1, 94.2", ["95.7 %", "94.5 ± 0.3", "93.1"]),
        ("A linear model reaches 24 %, and two others 55 and 63 %.", ["24 %", "55 and 63 %"]),
        (
            "Accuracy:\n\n    a command\n\n| rate | x |\n|---|---|\n| 0.1 | 95.3 ± 1.3 |\n| 12 | 96.1, 97 |",
            ["95.3 ± 1.3", "96.1, 97"],
        ),
        ("| row | accuracy | published |\n|---|---|---|\n| x | 54 % | 95.2 |\n| published log | 34.1 | |", ["54 %"]),
        ("The accuracy <!-- not ours -->35.5 %<!-- end -->, and its 95 % interval", []),
        ("84 % of the time is spent there.", []),
    ],
)
def test_unmarked_accuracies_are_found(text: str, expected: list[str]) -> None:
    assert unmarked(text) == expected
