"""Values as one types them on the command line: with null, true and [a,b], and quotes where Hydra's grammar needs them."""

from __future__ import annotations

import re
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from altprop.config.plain import UNRESOLVED

_PLAIN = re.compile(r"[A-Za-z_/.$*%@|?+:-][\w/.$*%@|?+: -]*(?<! )", re.ASCII)
"""Text that Hydra's grammar reads without quotes, unless it is a word with another meaning."""
_NUMBER = re.compile(r"[+-]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)(e[+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)
_WORDS = ("null", "true", "false")


def as_typed(value: Any) -> str:
    """``value`` as one types it after ``key=``, before the shell's own quotes."""
    if value is UNRESOLVED:
        return "…"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{as_typed(child)}" for name, child in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(as_typed(child) for child in value) + "]"
    return text_as_typed(value) if isinstance(value, str) else str(value)


def text_as_typed(text: str) -> str:
    """``text`` in quotes if it would not be read as text without them."""
    if text and "${" not in text and _PLAIN.fullmatch(text) and not looks_like_a_value(text):
        return text
    quote = Quote.double if set(text) & {"'", "$"} and '"' not in text else Quote.single
    return str(QuotedString(text, quote).with_quotes())


def looks_like_a_value(text: str) -> bool:
    """Whether ``text`` would be read as a number, true, false or null if it had no quotes."""
    return bool(_NUMBER.fullmatch(text)) or text.lower() in _WORDS
