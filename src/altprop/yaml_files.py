"""Reading YAML files that somebody else wrote. This module imports nothing from altprop but files and problems.

Aliases let a file of a kilobyte stand for billions of values, and nothing in YAML forbids it. Every file is therefore measured
before any value is made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml  # type: ignore[import-untyped]

from altprop.files import read_bytes, require_encodable
from altprop.problems import message_of

_Values = TypeVar("_Values")
MAX_BYTES = 8 * 2**20
"""Largest file that is read. The largest configuration of altprop has 10 kB."""
MAX_SIZE = 2**20
"""Largest number of values and characters that a file may stand for, with its aliases expanded."""
MAX_DEPTH = 50
"""Deepest nesting. OmegaConf needs Python's whole stack for 80 levels."""
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnsafeYAML(yaml.MarkedYAMLError):
    """The file is too large, nested too deeply, or its aliases expand to too much."""


def read_yaml(path: Path) -> Any:
    """The plain values in ``path``. No objects are made of tags.

    Raises ``OSError`` (:class:`altprop.files.NotRegular` for a pipe, a device or a folder), ``UnicodeDecodeError``, or
    ``yaml.YAMLError``, of which :class:`UnsafeYAML` is one.
    """
    if path.stat().st_size > MAX_BYTES:
        raise UnsafeYAML(problem=f"the file is larger than {MAX_BYTES // 2**20} MB", problem_mark=_mark(str(path)))
    text = read_bytes(path).decode()
    measure(text, str(path))
    return values_of(lambda: yaml.load(text, Loader=_Loader), str(path))


def values_of(load: Callable[[], _Values], name: str) -> _Values:
    """What ``load`` returns for the file ``name``.

    Raises :class:`UnsafeYAML` for what YAML allows but Python cannot hold, such as the 30th of February or a number of 5,000
    digits, and for text that could not be written again.
    """
    try:
        values = load()
        require_encodable(values)
    except (ValueError, OverflowError, TypeError, LookupError, AttributeError) as error:
        raise UnsafeYAML(problem=f"a value cannot be read: {message_of(error)}", problem_mark=_mark(name)) from error
    return values


def measure(text: str, name: str) -> None:
    """Check that the YAML in ``text``, the content of the file ``name``, stands for a reasonable number of values.

    Raises :class:`UnsafeYAML`, or another ``yaml.YAMLError`` if it is not YAML.
    """
    if _is_flat(text):
        return
    _measure_depth(text, name)
    root = yaml.compose(text, Loader=_Loader)
    if root is not None:
        _size(root, name, {})


def _is_flat(text: str) -> bool:
    """Whether ``text`` has no aliases and cannot be nested deeply. This is true of nearly all files and is found out at once."""
    flow = text.count("[") + text.count("{")
    block = max((len(line) - len(line.lstrip()) + line.count("-") + line.count("?") for line in text.splitlines()), default=0)
    return "*" not in text and flow + block < MAX_DEPTH and len(text) < MAX_SIZE


def _measure_depth(text: str, name: str) -> None:
    """Check the nesting from the stream of tokens, because building nodes of a deep file needs a deep stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1
        if depth > MAX_DEPTH:
            raise UnsafeYAML(problem=f"values are nested more than {MAX_DEPTH} deep", problem_mark=_mark(name, event))


def _size(node: Any, name: str, sizes: dict[int, int | None]) -> int:
    """The number of values and characters that ``node`` stands for. ``sizes`` holds those of nodes that were seen.

    An alias points to the same node, so each node is visited once however often it is used.
    """
    key = id(node)
    if key in sizes:
        known = sizes[key]
        if known is None:
            raise UnsafeYAML(problem="a value contains itself", problem_mark=_mark(name, node))
        return known
    sizes[key] = None
    if isinstance(node, yaml.ScalarNode):
        size = 1 + len(node.value)
    elif isinstance(node, yaml.MappingNode):
        size = 1 + sum(_size(child, name, sizes) for pair in node.value for child in pair)
    else:
        size = 1 + sum(_size(child, name, sizes) for child in node.value)
    if size > MAX_SIZE:
        problem = f"it stands for more than {MAX_SIZE:,} values and characters"
        raise UnsafeYAML(problem=problem, problem_mark=_mark(name, node))
    sizes[key] = size
    return size


def _mark(name: str, place: Any = None) -> Any:
    start = getattr(place, "start_mark", None)
    line, column = (start.line, start.column) if start is not None else (0, 0)
    return yaml.Mark(name, 0, line, column, None, None)


def one_line(error: Exception) -> str:
    """What is wrong with a file, in one line: the problem and the line of a ``yaml.YAMLError``, or the text of ``error``."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return message_of(error)
