"""Fonts for names in any script: those on this machine that have the letters, and a spelling for letters that none has.

Matplotlib is imported only when a name has letters beyond ASCII.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

STANDARD = "DejaVu Sans"
"""The font of all figures, which comes with Matplotlib and has Latin, Greek and Cyrillic letters."""
UNUSABLE = ("last resort", "lastresort", "color", "emoji")
"""Parts of the names of fonts that show boxes instead of letters, or bitmaps that Matplotlib cannot draw."""

_warned: list[str] = []
"""The letter that was warned of."""


def families_for(text: str) -> list[str]:
    """Font families that have the letters of ``text``, the first one first; letters that no font has do not count."""
    return [STANDARD, *_more_families(_beyond_ascii(text))]


def readable(text: str) -> str:
    """``text`` with letters that no installed font has replaced: without its accents, or as ``\\u732b``.

    The first text with such letters is a warning, which names them.
    """
    letters = _beyond_ascii(text)
    missing = letters - _covered(letters)
    if missing:
        _warn_once(next(iter(sorted(missing))))
    return "".join(_spelled(letter) if letter in missing else letter for letter in text)


def readable_names(names: Sequence[str]) -> list[str]:
    """The :func:`readable` names of classes; one that had to be changed begins with its number, so that it can be told apart."""
    shown = [readable(name) for name in names]
    return [new if new == name else f"{number} {new}" for number, (name, new) in enumerate(zip(names, shown))]


def font_file(text: str) -> Path | None:
    """The file of one font that has all letters of ``text``; None if there is none, or if they are all ASCII."""
    letters = _beyond_ascii(text)
    if not letters:
        return None
    return next((Path(file) for file, _ in _fonts() if letters <= _has(file, letters)), None)


def _beyond_ascii(text: str) -> frozenset[str]:
    return frozenset(letter for letter in text if not letter.isascii() and not letter.isspace() and letter.isprintable())


def _spelled(letter: str) -> str:
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return plain or letter.encode("ascii", "backslashreplace").decode()


def _warn_once(letter: str) -> None:
    """Say once in this process that a letter cannot be shown."""
    if not _warned:
        _warned.append(letter)
        name = unicodedata.name(letter, "a letter").lower()
        log.warning(
            "no installed font has %s (%s), so figures spell such names; a font such as Noto Sans CJK shows them", letter, name
        )


@cache
def _more_families(letters: frozenset[str]) -> tuple[str, ...]:
    """The families behind :data:`STANDARD` that ``letters`` need, each of which has as many of the rest as possible."""
    families: list[str] = []
    rest = letters - _has(_fonts()[0][0], letters) if letters else letters
    while rest:
        file, family = max(_fonts(), key=lambda font: len(_has(font[0], rest)))  # the first one of equals
        found = _has(file, rest)
        if not found:
            break
        families.append(family)
        rest -= found
    return tuple(families)


def _covered(letters: frozenset[str]) -> frozenset[str]:
    return frozenset().union(*(_has(file, letters) for file, _ in _fonts())) if letters else letters


@cache
def _fonts() -> tuple[tuple[str, str], ...]:
    """File and family of every upright font of this machine: :data:`STANDARD`, then sans-serif ones, then the others."""
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for file in font_manager.findSystemFonts():  # those installed since Matplotlib last looked
        if file not in known and not _unusable(Path(file).name):
            _add(file)
    entries = [
        entry
        for entry in font_manager.fontManager.ttflist
        if entry.style == "normal" and entry.weight in (400, "normal", "regular", "book") and not _unusable(entry.name)
    ]
    entries.sort(key=lambda entry: (entry.name != STANDARD, "sans" not in entry.name.lower(), entry.name, entry.fname))
    return tuple((entry.fname, entry.name) for entry in entries)


def _add(file: str) -> None:
    from matplotlib.font_manager import fontManager

    try:
        fontManager.addfont(file)
    except Exception:  # FreeType raises its own errors for files that it cannot read
        log.debug("%s cannot be read as a font", file)


def _unusable(name: str) -> bool:
    return any(part in name.lower() for part in UNUSABLE)


@cache
def _has(file: str, letters: frozenset[str]) -> frozenset[str]:
    """Those of ``letters`` that the font in ``file`` has."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(file)
        return frozenset(letter for letter in letters if font.get_char_index(ord(letter)))
    except Exception:  # as in _add
        return frozenset()
