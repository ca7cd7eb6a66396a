"""Figures of iterative binarization."""

from __future__ import annotations

from altprop.reporting.figures.binarization import draw_sensitivity, draw_timeline
from tests.reporting.fixtures import PNG


def test_sensitivities(tmp_path):
    path = tmp_path / "sensitivity.png"
    assert draw_sensitivity(("a", "b", "c"), [90.0, 95.0, 90.0], path, metric="validation/accuracy") == path
    assert path.read_bytes().startswith(PNG)


def test_timeline(tmp_path):
    flags = {"weights/binary_layers": 1, "weights/binary/a": 1.0, "weights/binary/b": 0.0}
    records = [
        {"epoch": epoch, "validation/accuracy": 89.0 + epoch, "weights/fully_binary": 0.0, **flags} for epoch in (1.0, 2.0)
    ]
    path = tmp_path / "timeline.png"
    assert draw_timeline(records, path) == path
    assert path.read_bytes().startswith(PNG)


def test_nothing_is_drawn_without_binary_layers(tmp_path):
    path = tmp_path / "timeline.png"
    assert draw_timeline([{"epoch": 1.0, "test/accuracy": 3.0}], path) is None
    assert not path.exists()
