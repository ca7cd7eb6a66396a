"""The shared code of all benchmarks: turns, ratios, limits, memory, tables. No test asserts a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from measuring import CPU, Row, Timer, alternate, at_least, at_most, number, paired
from memory import peak_bytes
from reporting import BEGIN, END, Section, aligned, as_json, machine, markdown, verdict, write_document
from scaling_figure import draw

FACTS = machine("process")


def row(what: str = "ours", ratio: float = 1.0) -> Row:
    return Row(
        what, "theirs", ratio, at_most(1.05, "target"), (0.9, 1.1), flops=2.0, memory=1.5, memory_limit=at_most(2, "bytes")
    )


@pytest.mark.parametrize(("names", "order"), [("ab", "baabba"), ("abc", "cababcbca")])
def test_sides_take_turns_and_the_first_round_is_dropped(names: str, order: str) -> None:
    calls: list[str] = []
    sides = {name: (lambda name=name: calls.append(name)) for name in names}
    seconds = alternate(sides, 2, Timer())
    assert "".join(calls) == order
    assert [len(values) for values in seconds.values()] == [2] * len(names)


def test_the_ratio_is_the_median_of_rounds_not_of_times() -> None:
    result = paired("a", "b", [1.0, 20.0, 3.0], [1.0, 10.0, 1.0], at_most(1.5, "target"))
    assert result.ratio == 2.0
    assert result.quartiles == (1.5, 2.5)
    assert result.values == {"ms": 3000.0, "ms of the baseline": 1000.0}
    assert verdict(result) == "missed"


def test_values_of_a_speed_are_not_exchanged() -> None:
    result = paired("a", "b", [8.0], [2.0], at_least(3, "target"))
    assert result.ratio == 4.0
    assert result.quartiles == (4.0, 4.0)
    assert result.values == {"ms": 2000.0, "ms of the baseline": 8000.0}
    assert result.measure == "speed"
    assert verdict(result) == "met"


def test_memory_has_its_own_limit() -> None:
    assert verdict(row()) == "met"
    large = Row("ours", "theirs", 1.0, at_most(1.05, "target"), memory=3.0, memory_limit=at_most(2, "bytes"))
    assert verdict(large) == "memory missed"


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1.00"), (1.0013, "1.001"), (1.05, "1.05"), (123.4, "123"), (12.34, "12.3"), (0.02, "2.0e-02")]
)
def test_ratios_have_their_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_peak_memory_of_a_step_includes_what_it_was_built_with() -> None:
    size = 2**20

    def make() -> Callable[[], None]:
        persistent = torch.zeros(size)  # 4 MiB, alive all the time
        torch.zeros(8 * size)  # released before the step

        def step() -> None:
            first = persistent + 1  # 4 MiB
            del first
            second = torch.cat([persistent, persistent])  # 8 MiB
            del second

        return step

    assert peak_bytes(make, CPU) == pytest.approx(12 * size, rel=0.001)


def test_a_step_that_fails_leaves_the_profiler_usable() -> None:
    def broken() -> Callable[[], None]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        peak_bytes(broken, CPU)
    assert peak_bytes(lambda: lambda: torch.zeros(1000), CPU) >= 4000


def test_tables_omit_empty_columns() -> None:
    bare = Section("bare", "--rounds 3", FACTS, (Row("a", "b", 2.0, at_most(3, "target")),))
    assert "FLOPs" not in aligned([bare])
    full = aligned([Section("full", "", FACTS, (row(),))])
    assert "FLOPs" in full
    assert "1.50 (≤ 2.00)" in full
    assert as_json(bare)["rows"][0]["met"] is True


def test_a_document_keeps_sections_that_are_not_measured_again(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# before\n\n{BEGIN}\n{END}\n\nafter\n")
    write_document([Section("one", "", FACTS, (row("first"),)), Section("two", "", FACTS, (row("second"),))], page)
    write_document([Section("one", "", FACTS, (row("third"),))], page)
    text = page.read_text()
    assert text.startswith("# before\n\n")
    assert text.endswith("\n\nafter\n")
    assert "first" not in text
    assert text.index("third") < text.index("second")
    write_document([Section("one", "", FACTS, (row("third"),))], page)
    assert page.read_text() == text
    write_document([], page, ("two", "one"))
    assert page.read_text().index("second") < page.read_text().index("third")
    for line in markdown(Section("one", "", FACTS, (row(), row()))).splitlines()[4:]:
        assert line.count("|") == 11


def test_a_document_without_marks_is_refused_and_does_not_change(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="has no lines"):
        write_document([], page)
    assert page.read_text() == "nothing\n"


def test_the_figure_of_scaling_is_drawn(tmp_path: Path) -> None:
    rows = [
        Row(
            f"{subject}, {axis} {setting}", f"{axis} 1", 1.5 * setting, at_most(9, "FLOPs"),
            flops=float(setting), memory=2.0, values={"setting": setting, "smallest setting": 1},
        )
        for subject in ("backprop", "something new")
        for axis in ("depth", "relaxation steps")
        for setting in (2, 4)
    ]  # fmt: skip
    assert draw(rows, tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
