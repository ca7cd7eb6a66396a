"""What was spent on a run before it began: the costs of the runs whose weights or masks it started from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from altprop.reporting.runs import Run

STARTS = ("weights_from", "mask_from")
"""Keys of a configuration that hold the path of another run's checkpoint, ``<run>/checkpoints/<state>.pt``."""


class Starts:
    """The costs of what runs started from, looked up among ``runs``."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.by_key = {run.key: run for run in runs}
        self.by_path = {run.path: run for run in runs}

    def costs(self, run: Run, names: Sequence[str]) -> dict[str, float | None] | None:
        """``names`` (of costs in records), summed over all runs that ``run`` goes back to; each of them counts once.

        A state from within a run costs what the run had spent by then, one from before its first step nothing. None for a cost
        that one of them did not record; None altogether where one of them cannot be found.
        """
        ends = self._ends(run, {})
        if ends is None:
            return None
        totals: dict[str, float | None] = {}
        for name in names:
            spent = [end.get(name) for end in ends.values()]
            totals[name] = sum(value for value in spent if value is not None) if None not in spent else None
        return totals

    def _ends(self, run: Run, found: dict[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]] | None:
        """The record at which each run that ``run`` goes back to was taken up, by the run's key, added to ``found``."""
        for text in started_from(run.config):
            state = PurePath(text).stem
            if state == "initial":
                continue
            folder = Path(text).parent.parent
            other = self.by_path.get(folder) or self.by_key.get(folder.name)
            epoch = state.removeprefix("epoch-")
            records = [
                record for record in (other.records if other else ()) if not epoch.isdigit() or record["epoch"] <= int(epoch)
            ]
            if other is None or not records:
                return None
            known = found.get(other.key)
            if known is None or known["epoch"] < records[-1]["epoch"]:
                found[other.key] = records[-1]
            if known is None and self._ends(other, found) is None:
                return None
        return found


def started_from(config: Mapping[str, Any]) -> Iterator[str]:
    """The checkpoints of other runs that ``config`` names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from started_from(value)
        elif name in STARTS and isinstance(value, str):
            yield value
