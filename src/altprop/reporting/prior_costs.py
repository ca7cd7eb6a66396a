"""The cost of what a run started from: the training of the runs whose weights or masks it took over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from altprop.reporting.runs import Run

START_KEYS = ("weights_from", "mask_from")
"""Configuration keys that contain the path of another run, of its checkpoint ``<run>/checkpoints/<state>.pt``, or of a file."""


class PriorCosts:
    """Looks up, among ``runs``, what the runs that another run started from have cost."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.by_key = {run.key: run for run in runs}
        self.by_path = {run.path: run for run in runs}

    def of(self, run: Run, names: Sequence[str]) -> dict[str, float | None] | None:
        """The costs called ``names`` in records, summed over all direct and indirect predecessors of ``run``.

        Each predecessor counts once. A state saved during a run costs what the run had spent by then; a state saved before its
        first step costs nothing. A cost that a predecessor did not record is None. The result is None if a predecessor cannot
        be found.
        """
        ends = self._ends(run, {})
        if ends is None:
            return None
        totals: dict[str, float | None] = {}
        for name in names:
            spent = [end.get(name) for end in ends.values()]
            totals[name] = sum(value for value in spent if value is not None) if None not in spent else None
        return totals

    def _ends(self, run: Run, ends: dict[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]] | None:
        """Add to ``ends``, by key, the record at which each predecessor of ``run`` was taken over; None if one is not found."""
        for text in start_checkpoints(run.config):
            state = PurePath(text).stem
            if state == "initial":
                continue
            folder = Path(text).parent.parent if PurePath(text).suffix else Path(text)  # a file, or the directory of a run
            predecessor = self.by_path.get(folder) or self.by_key.get(folder.name)
            epoch = state.removeprefix("epoch-")
            records = [
                record
                for record in (predecessor.records if predecessor else ())
                if not epoch.isdigit() or record["epoch"] <= int(epoch)
            ]
            if predecessor is None or not records:
                return None
            known = ends.get(predecessor.key)
            if known is None or known["epoch"] < records[-1]["epoch"]:
                ends[predecessor.key] = records[-1]
            if known is None and self._ends(predecessor, ends) is None:
                return None
        return ends


def start_checkpoints(config: Mapping[str, Any]) -> Iterator[str]:
    """The checkpoints of other runs that ``config`` names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from start_checkpoints(value)
        elif name in START_KEYS and isinstance(value, str):
            yield value
