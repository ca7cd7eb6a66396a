"""What is wrong with an override that Hydra's grammar cannot read, and how it is written."""

from __future__ import annotations

import ast
import os
import re
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from altprop.config.typed import as_typed
from altprop.problems import Problem, nearest

GRAMMAR = "overrides are key=value, +key=value (a new key), ~key (remove it) or group=choice"
QUOTES = "text with = , ( ) [ ] { } # quotes or letters beyond ASCII needs quotes of its own, inside those of the shell"
CLOSED = "each bracket is closed once"
_FUNCTIONS = ("bool", "choice", "float", "glob", "int", "interval", "range", "shuffle", "sort", "str", "tag")
_CLOSING = {"[": "]", "{": "}", "(": ")"}


def unreadable(text: str) -> Problem:
    """The problem of the override ``text``, with the reason that Hydra gives and the spelling that helps."""
    key, separator, value = text.partition("=")
    description = f"{text!r} cannot be parsed: {reason(text)}"
    if not separator or not re.fullmatch(r"[+~]{0,2}[\w./@:$-]+", key, re.ASCII):
        return Problem("command line", description, GRAMMAR)
    for allowed, candidate in _spellings(value):
        if _is_readable(f"{key}={candidate}"):
            return Problem("command line", description, allowed, in_shell(f"{key}={candidate}"))
    is_call = re.match(rf"({'|'.join(_FUNCTIONS)})\(", value) is not None
    if value[:1] in ("[", "{") and _closed(value) != value:
        return Problem("command line", description, CLOSED)
    return Problem("command line", description, GRAMMAR if is_call else QUOTES)


def reason(text: str) -> str:
    """Why Hydra cannot read ``text``, on one line."""
    try:
        OverridesParser.create().parse_rule(text, "override")
    except HydraException as error:
        lines = str(error).splitlines() or [type(error).__name__]
        return re.sub(r" expecting \{.*", "", re.sub(r"^\w+ while evaluating ", "", lines[0]))
    return "it has no meaning here"


def in_shell(text: str) -> str:
    """``text`` as one types it in a shell: in double quotes if it has single ones, which is easier to read than escapes."""
    return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else shlex.quote(text)


def _spellings(value: str) -> list[tuple[str, str]]:
    """What was most likely meant by ``value``: what is allowed, and a spelling of it, the likeliest first."""
    spellings = []
    if value.startswith("~/") or value == "~":
        spellings.append(("a path without ~", as_typed(os.path.expanduser(value))))
    if (call := re.fullmatch(r"(\w+)\((.*)\)", value)) is not None:
        function, arguments = call.groups()
        if function == "choice" and "null" in arguments:
            return [("a list of values with null is written without choice", arguments)]
        if function not in _FUNCTIONS and (near := nearest(function, _FUNCTIONS)):
            return [(f"functions: {', '.join(_FUNCTIONS)}", f"{near}({arguments})")]
    if value.strip(",") != value and value.strip(","):
        spellings.append(("a list of values neither begins nor ends with a comma", value.strip(",")))
    closed = _closed(value)
    if closed != value:
        spellings += [(CLOSED, closed), (CLOSED, _closed(value.rstrip(", ")))]
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    else:
        if isinstance(literal, (dict, list, tuple)):
            spellings.append(("a mapping is written {key:value}, a list [a,b], without quotes around words", as_typed(literal)))
    if value.startswith("[") and value.endswith("]"):
        parts = [part.strip() for part in value[1:-1].split(",") if part.strip()]
        quoted = [part if _is_readable(f"key={part}") else as_typed(part) for part in parts]
        spellings.append((QUOTES, f"[{','.join(quoted)}]"))
    if (call is not None and call[1] in _FUNCTIONS) or (closed != value and value[0] in "[{"):
        return spellings
    return [*spellings, (QUOTES, as_typed(value))]


def _closed(value: str) -> str:
    """``value`` with each bracket closed once, if it has brackets at its start or those of a function."""
    if not re.match(r"[\[{]|\w+\(", value):
        return value
    missing: list[str] = []
    closed = ""
    for letter in value:
        if letter in _CLOSING:
            missing.append(_CLOSING[letter])
        elif missing and letter == missing[-1]:
            missing.pop()
        elif letter in _CLOSING.values():
            continue  # nothing is open
        closed += letter
    return closed + "".join(reversed(missing))


def _is_readable(text: str) -> bool:
    try:
        OverridesParser.create().parse_rule(text, "override")
    except HydraException:
        return False
    return True
