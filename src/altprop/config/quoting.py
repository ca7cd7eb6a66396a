"""Values as they must be written on Hydra's command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.types import Quote, QuotedString

PLAIN = re.compile(r"[A-Za-z_/][\w./-]*", re.ASCII)
"""Strings that need no quotes, unless Hydra reads them as another type."""
OTHER_TYPES = ("null", "true", "false", "inf", "nan")


def quoted(text: str) -> str:
    """``text`` in Hydra's grammar: a value that is read as exactly this string, whatever characters it contains."""
    if PLAIN.fullmatch(text) and text.lower() not in OTHER_TYPES:
        return text
    literal = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)  # OmegaConf would read an interpolation
    return str(QuotedString(literal, Quote.single).with_quotes())


def quoted_list(texts: Sequence[str]) -> str:
    """A list of strings in Hydra's grammar."""
    return f"[{','.join(map(quoted, texts))}]"
