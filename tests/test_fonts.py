"""Names in any script: fonts that have the letters, and the spelling of letters that none has."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from matplotlib import font_manager
from matplotlib.text import Text

from altprop import fonts
from altprop.reporting.figures import standard, style

CAT, DOG = "\N{CJK UNIFIED IDEOGRAPH-732B}", "\N{CJK UNIFIED IDEOGRAPH-72AC}"
CACHED = (fonts._fonts, fonts._has, fonts._more_families)


def box_font(file: Path, family: str, letters: str) -> None:
    """Write a font in which every one of ``letters`` is a box."""
    builder = FontBuilder(unitsPerEm=100, isTTF=True)
    glyphs = [".notdef", *(f"g{number}" for number in range(len(letters)))]
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap({ord(letter): glyph for letter, glyph in zip(letters, glyphs[1:])})
    builder.setupGlyf({glyph: _box() for glyph in glyphs})
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (100, 0)))
    builder.setupHorizontalHeader(ascent=80, descent=-20)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=80, usWinAscent=80, usWinDescent=20)
    builder.setupPost()
    builder.save(file)


def _box() -> object:
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((10, 0))
    for corner in ((10, 70), (90, 70), (90, 0)):
        pen.lineTo(corner)
    pen.closePath()
    return pen.glyph()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the machine's fonts, besides those that Matplotlib brings."""
    own = Path(font_manager.__file__).parent / "mpl-data"
    known = [entry for entry in font_manager.fontManager.ttflist if Path(entry.fname).is_relative_to(own)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(file) for file in sorted(tmp_path.glob("*.ttf"))])
    monkeypatch.setattr(fonts, "_warned", [])
    for cached in CACHED:
        cached.cache_clear()
    yield tmp_path
    for cached in CACHED:
        cached.cache_clear()


def test_a_font_that_has_the_letters_is_chosen(installed: Path) -> None:
    box_font(installed / "cats.ttf", "Cats Sans", CAT)
    box_font(installed / "both.ttf", "Pets Sans", CAT + DOG)
    fonts._fonts.cache_clear()
    assert fonts.families_for(f"cat {CAT}") == ["DejaVu Sans", "Cats Sans"]
    assert fonts.families_for(CAT + DOG) == ["DejaVu Sans", "Pets Sans"]
    assert fonts.readable_names([CAT, "größe", "x"]) == [CAT, "größe", "x"]
    assert fonts.font_file(DOG) == installed / "both.ttf"
    assert fonts.families_for("größe Ελλάδα собака") == ["DejaVu Sans"]


def test_letters_that_no_font_has_are_spelled_and_named_once(installed: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert fonts.readable_names(["x", CAT, "\N{FULLWIDTH LATIN CAPITAL LETTER A}b", DOG]) == [
            "x",
            "1 \\u732b",
            "2 Ab",
            "3 \\u72ac",
        ]
    [record] = caplog.records
    assert CAT in record.message
    assert fonts.font_file(CAT) is None


@pytest.mark.parametrize("has_font", [True, False])
def test_figures_show_the_names_without_a_warning_for_each_letter(
    has_font: bool, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_font:
        box_font(installed / "both.ttf", "Pets Sans", CAT + DOG)
        fonts._fonts.cache_clear()
    shown: list[Text] = []
    write = style.save
    monkeypatch.setattr(standard, "save", lambda figure, path: (write(figure, path), shown.extend(figure.findobj(Text)))[0])
    targets = torch.tensor([0, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        standard.draw_confusion(targets, targets.flip(0), [CAT, DOG], installed / "confusion.png", title=CAT)
        standard.draw_mistakes(
            torch.rand(3, 1, 4, 4), targets, torch.tensor([[0.0, 1.0]] * 3), [CAT, DOG], installed / "mistakes.png", title=DOG
        )
    texts = [text for text in shown if (CAT if has_font else "\\u732b") in text.get_text()]
    assert len(texts) >= 3  # the title and both axes
    assert not has_font or all("Pets Sans" in text.get_fontfamily() for text in texts)
