"""The record of a run: ``metrics.jsonl`` with one record per line, and ``metrics.csv`` with the same data as a table."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from altprop.files import NotRegular, read_bytes, write_text
from altprop.tracking.base import RunInfo, Tracker

logger = logging.getLogger(__name__)

JSON_NAME = "metrics.jsonl"
CSV_NAME = "metrics.csv"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records in the file ``path``, oldest first; an empty list if there is no file.

    A truncated last line, left by a killed process, is dropped. Values that are not finite are written and read as ``NaN`` and
    ``Infinity``. Raises ValueError, which names the file and line, if any other line is not a record.
    """
    records, problems = read_lines(path)
    if problems:
        raise ValueError(f"{path}, {problems[0]}")
    return records


def read_lines(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the records in ``path``, and one line for each line of the file that is not a record."""
    try:
        lines = read_bytes(path).split(b"\n")
    except FileNotFoundError:
        return [], []
    records, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            record = json.loads(line)
            if not _is_record(record):
                raise ValueError("not an object of numbers")
        except (ValueError, RecursionError) as error:
            if number < len(lines):  # else it is truncated, because no newline follows it
                problems.append(f"line {number}: not a record ({error})")
            continue
        records.append(record)
    return records, problems


def read_table(path: Path) -> list[dict[str, Any]]:
    """Return the records in the table ``path``, as far as it is complete: the same values as in the metrics file."""
    try:
        text = read_bytes(path).decode()
    except (OSError, UnicodeDecodeError):
        return []
    complete = text[: text.rfind("\n") + 1].replace("\0", "")
    records = []
    try:
        for row in csv.DictReader(io.StringIO(complete)):
            records.append({name: _number(value) for name, value in row.items() if value})
    except (csv.Error, TypeError, ValueError):
        return []
    return [record for record in records if _is_record(record)]


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, (int, float)) for each in value.values())


def up_to(records: Iterable[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """Return the records with a step up to ``step``."""
    return [record for record in records if record.get("step", math.inf) <= step]


def _after_start(records: Iterable[dict[str, Any]]) -> int:
    return sum(record["step"] > 0 for record in records)


class MetricsFile(Tracker):
    """Writes the record. Its errors, such as a full disk, are raised and stop the run.

    When a run is resumed, records after the step it resumes from are dropped, so that a killed and resumed run leaves the same
    records as an uninterrupted one.
    """

    inline = True

    def __init__(self, directory: Path) -> None:
        self.path = directory / JSON_NAME
        self.table_path = directory / CSV_NAME
        self._columns: list[str] | None = None
        self._records: list[dict[str, Any]] = []

    def start(self, run: RunInfo) -> None:
        """Rewrite both files, without records unless the run is resumed."""
        self._records = self._kept(run) if run.resumed else []
        write_text(self.path, "".join(json_line(record) for record in self._records))
        self._rewrite_table()

    def _kept(self, run: RunInfo) -> list[dict[str, Any]]:
        """The records of a resumed run; a damaged file is replaced by the table, and a warning says what is lost."""
        try:
            found, problems = read_lines(self.path)
        except NotRegular as error:
            found, problems = [], [str(error)]
        records = up_to(found, run.start_step)
        missing = run.records - _after_start(records)
        if missing > 0:
            table = up_to(read_table(self.table_path), run.start_step)
            if _after_start(table) == run.records:
                logger.warning("%s was damaged; its records are restored from %s", self.path, CSV_NAME)
                return table
            logger.warning(
                "%s lacks %d of the %d records up to step %d, which are lost; resume=false trains the run again",
                *(self.path, missing, run.records, run.start_step),
            )
        for problem in problems:
            logger.warning("%s, %s; it is dropped", self.path, problem)
        return records

    def log(self, record: Mapping[str, float]) -> None:
        """Append one record and flush it to the disk. If that raises OSError, the file ends with the previous record."""
        if self._columns is None:
            raise RuntimeError("MetricsFile.log before start")
        values = dict(record)
        append(self.path, json_line(values).encode())
        self._records.append(values)
        if values.keys() <= set(self._columns):
            append(self.table_path, csv_text([values], self._columns).encode(), flush=False)  # a resumed run rewrites it
        else:
            self._rewrite_table()

    def _rewrite_table(self) -> None:
        self._columns = columns_of(self._records)
        header = csv_text([dict(zip(self._columns, self._columns))], self._columns) if self._columns else ""
        write_text(self.table_path, header + csv_text(self._records, self._columns))


def json_line(record: Mapping[str, Any]) -> str:
    """Return one record as one line."""
    return json.dumps(record, ensure_ascii=False) + "\n"


def columns_of(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return all names in ``records``: ``epoch`` and ``step`` first, then in order of appearance."""
    names = dict.fromkeys(name for record in records for name in record)
    return sorted(names, key=lambda name: {"epoch": 0, "step": 1}.get(name, 2))


def csv_text(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return the records as lines of a comma-separated table; missing values are left empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writerows(records)
    return stream.getvalue()


def append(path: Path, line: bytes, flush: bool = True) -> None:
    """Append ``line`` and flush it to the disk. If that raises OSError, the file is left unchanged."""
    with open(path, "ab", buffering=0) as stream:
        end = os.fstat(stream.fileno()).st_size
        try:
            written = 0
            while written < len(line):
                written += stream.write(line[written:])
            if flush:
                os.fsync(stream.fileno())
        except OSError:
            os.ftruncate(stream.fileno(), end)
            raise
