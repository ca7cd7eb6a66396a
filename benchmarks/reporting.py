"""Rows of benchmarks as a table in the terminal, as Markdown in a document and as JSON, with facts about the machine."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from measuring import Row, number

import altprop
from altprop.code_state import code_state
from altprop.files import write_bytes

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
"""The lines of a document between which ``run.py --document`` writes the tables."""


@dataclass(frozen=True)
class Section:
    """The rows of one benchmark, its command line and the machine it ran on."""

    name: str
    arguments: str
    machine: Mapping[str, Any]
    rows: tuple[Row, ...]


def machine(clock: str, device: str = "cpu") -> dict[str, Any]:
    """Return what the numbers depend on in addition to the code."""
    facts, _ = code_state(Path(altprop.__file__).resolve().parent)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU",
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "clock": clock,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "altprop": altprop.__version__,
        "commit": facts and facts["commit"],
        "changed": facts and facts["dirty"],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def place(facts: Mapping[str, Any]) -> str:
    """Return the result of :func:`machine` as text."""
    device = facts["processor"] if facts["device"] == "CPU" else facts["device"]
    commit = f"{str(facts['commit'])[:7]}{' with changes' if facts['changed'] else ''}" if facts["commit"] else "unknown"
    clock = "processor time" if facts["clock"] == "process" else "wall time"
    threads = f"{facts['threads']} thread{'s' * (facts['threads'] > 1)}"
    return (
        f"{facts['date']}, {device}, {facts['cores']} cores, {threads}, load {facts['load']}, {clock}, torch {facts['torch']}, "
        f"commit {commit}"
    )


# -- cells -----------------------------------------------------------------------------------------------------------------


def verdict(row: Row) -> str:
    """Return whether both limits are met, and if not, which one is missed."""
    if row.met and row.memory_met:
        return "met"
    return "missed" if not row.met else "memory missed"


def _quartiles(row: Row) -> str:
    return "-" if row.quartiles is None else f"{number(row.quartiles[0])} to {number(row.quartiles[1])}"


def _memory(row: Row) -> str:
    if row.memory is None:
        return ""
    return f"{number(row.memory)} ({row.memory_limit})" if row.memory_limit else number(row.memory)


COLUMNS: dict[str, Callable[[Row], str]] = {
    "what": lambda row: row.what,
    "baseline": lambda row: row.baseline,
    "ratio of": lambda row: row.measure,
    "ratio": lambda row: number(row.ratio),
    "quartiles": _quartiles,
    "FLOPs": lambda row: "" if row.flops is None else number(row.flops),
    "limit": lambda row: str(row.limit),
    "reason": lambda row: row.limit.reason,
    "memory (limit)": _memory,
    "": verdict,
}


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return titles and cells, without columns that are empty in every row."""
    columns = {title: [cell(row) for row in rows] for title, cell in COLUMNS.items()}
    columns = {title: values for title, values in columns.items() if any(values)}
    return list(columns), [list(values) for values in zip(*columns.values(), strict=True)]


def line(row: Row) -> str:
    """Return one line for ``row``, printed while a benchmark runs."""
    memory = f"; memory {_memory(row)}" if row.memory is not None else ""
    return f"  {row.what} / {row.baseline}: {number(row.ratio)} ({_quartiles(row)}), {row.limit}{memory}: {verdict(row)}"


def aligned(sections: Iterable[Section]) -> str:
    """Return all sections as text in aligned columns."""
    lines = []
    for section in sections:
        titles, body = cells(section.rows)
        widths = [max(map(len, column)) for column in zip(titles, *body, strict=True)]
        lines += ["", f"{section.name} {section.arguments}".rstrip(), place(section.machine)]
        lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [titles, *body]]
    return "\n".join(lines)


def markdown(section: Section) -> str:
    """Return one section as Markdown, under a heading of the third level."""
    titles, body = cells(section.rows)
    table = [titles, ["---"] * len(titles), *body]
    command = f"`python benchmarks/{section.name}.py {section.arguments}".rstrip() + "`"
    rows = "\n".join("| " + " | ".join(row) + " |" for row in table)
    return f"### {section.name}\n\n{command}; {place(section.machine)}.\n\n{rows}\n"


# -- files -----------------------------------------------------------------------------------------------------------------


def as_json(section: Section) -> dict[str, Any]:
    """Return one section as plain values."""
    rows = [{**asdict(row), "met": row.met, "memory_met": row.memory_met} for row in section.rows]
    return {"benchmark": section.name, "arguments": section.arguments, "machine": dict(section.machine), "rows": rows}


def write_json(sections: Iterable[Section], path: Path) -> None:
    write_bytes(path, (json.dumps([as_json(section) for section in sections], indent=2, ensure_ascii=False) + "\n").encode())


def write_document(sections: Iterable[Section], path: Path, order: Sequence[str] = ()) -> None:
    """Write ``sections`` between the marks of the document ``path``; sections of other benchmarks that are there stay.

    Benchmarks named in ``order`` come first, in that order. Raises ValueError if the document has no marks.
    """
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no lines {BEGIN} and {END}")
    parts = re.split(r"^(?=### )", inside, flags=re.MULTILINE)
    texts = {part.split("\n", 1)[0].removeprefix("### ").strip(): part for part in parts if part.startswith("### ")}
    texts |= {section.name: markdown(section) for section in sections}
    names = [name for name in order if name in texts]
    names += [name for name in texts if name not in names]
    body = "\n".join(texts[name].strip() + "\n" for name in names)
    write_bytes(path, f"{before}{BEGIN}\n\n{body}\n{END}{after}".encode())
