"""The standard figures of a run, and the style of all figures."""

import os
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from altprop.reporting.figures import standard, style
from altprop.reporting.figures.standard import (
    confusion_matrix,
    displayable,
    draw_confusion,
    draw_curves,
    draw_mistakes,
    series_of,
)
from altprop.reporting.figures.style import spread

DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that were saved."""
    saved: list[Figure] = []

    def save(figure: Figure, path: Path) -> Path:
        saved.append(figure)
        return style.save(figure, path)

    monkeypatch.setattr(standard, "save", save)
    return saved


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_visible() and text.get_text()]


def is_image(path: Path) -> bool:
    image = matplotlib.image.imread(path)
    return image.ndim == 3 and float(np.std(image)) > 0.01


def record(epoch: int, **values: float) -> dict[str, float]:
    named = {name.replace("_", "/", 1): value for name, value in values.items()}
    return {"epoch": epoch, "step": 10 * epoch, "train/loss": 1 / epoch, "train/accuracy": 90.0 + epoch, **named}


def test_curves_are_labeled_with_name_and_last_value(tmp_path, drawn):
    records = [record(epoch, validation_accuracy=80.0 + epoch, test_accuracy=80.1 + epoch) for epoch in range(1, 6)]
    path = draw_curves(records, tmp_path / "figures" / "curves.png", title="a $run$")
    assert path == tmp_path / "figures" / "curves.png"
    assert is_image(path)
    assert os.listdir(path.parent) == ["curves.png"]
    (figure,) = drawn
    assert {"train 95.00", "validation 85.00", "test 85.10", "train 0.2", "a $run$"} <= set(texts(figure))
    loss, accuracy = figure.axes
    assert len(loss.lines) == 1
    assert len(accuracy.lines) == 3
    assert len({line.get_color() for line in accuracy.lines}) == 3


def test_a_wide_range_of_losses_has_a_logarithmic_axis(tmp_path, drawn):
    draw_curves([record(1, train_loss=2.0), record(2, train_loss=0.01)], tmp_path / "wide.png")
    draw_curves([record(1, train_loss=2.0), record(2, train_loss=-1.0)], tmp_path / "negative.png")
    assert [figure.axes[0].get_yscale() for figure in drawn] == ["log", "linear"]


def test_values_that_are_missing_or_not_finite_are_left_out():
    records = [record(1), {"epoch": 1.5, "step": 15}, record(2, train_loss=float("nan")), record(3, test_loss=5.0)]
    assert series_of(records, "loss") == {"train": ([1, 3], [1.0, 1 / 3]), "test": ([3], [5.0])}


def test_records_without_any_curve_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="no record contains a loss or an accuracy"):
        draw_curves([{"epoch": 1, "step": 1, "weights/density": 0.5}], tmp_path / "curves.png")
    assert os.listdir(tmp_path) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=60))
def test_confusion_matrix_counts_every_pair(pairs):
    targets, predicted = (torch.tensor([pair[side] for pair in pairs], dtype=torch.long) for side in (0, 1))
    counts = confusion_matrix(targets, predicted, 5)
    expected = np.zeros((5, 5), dtype=int)
    for true, guess in pairs:
        expected[true, guess] += 1
    assert (counts == expected).all()


def test_a_small_confusion_matrix_shows_counts_and_names(tmp_path, drawn):
    targets = torch.tensor([0, 0, 0, 1, 2])
    predicted = torch.tensor([0, 0, 1, 1, 2])
    path = draw_confusion(targets, predicted, ["cat$", "dog", "a very long class name"], tmp_path / "confusion.png", title="Test")
    assert is_image(path)
    labels = texts(drawn[0])
    assert {"cat$", "dog", "a very long cla…", "2", "Test: 80.00 % of 5 right"} <= set(labels)
    assert sorted(text.get_text() for text in drawn[0].axes[0].texts) == ["1", "1", "1", "2"]


@pytest.mark.parametrize(("classes", "named", "annotated"), [(10, 10, True), (100, 100, False), (1000, 0, False)])
def test_many_classes_are_legible(tmp_path, drawn, classes, named, annotated):
    targets = torch.arange(classes).repeat(3)
    names = [f"class{number}" for number in range(classes)]
    assert is_image(draw_confusion(targets, targets.roll(1), names, tmp_path / "confusion.png"))
    axes = drawn[0].axes[0]
    assert sum(label.get_text().startswith("class") for label in axes.get_yticklabels()) == named
    assert bool(axes.texts) == annotated
    if named:
        heights = [label.get_window_extent().height for label in axes.get_yticklabels()]
        assert max(heights) <= axes.get_window_extent().height / classes * 1.3


def test_the_most_confident_mistakes_come_first(tmp_path, drawn):
    images = torch.rand(4, 1, 6, 6)
    targets = torch.tensor([0, 1, 2, 3])
    scores = torch.zeros(4, 10)
    scores[0, 7] = 1.0
    scores[1, 8] = 9.0
    scores[2, 2] = 5.0  # right
    scores[3, 9] = 4.0
    path = draw_mistakes(images, targets, scores, DIGITS, tmp_path / "mistakes.png", limit=2)
    assert is_image(path)
    labels = texts(drawn[0])
    assert "3 of 4 images wrong, the 2 most confident (true → predicted, its score)" in labels
    assert [text for text in labels if text[1:4] == " → "] == ["1 → 8", "3 → 9"]
    assert {"9.00", "4.00"} <= set(labels)
    sheet = (matplotlib.image.imread(path)[60:, :217, 0] * 255).round()  # below the heading, the first of four cells
    first = sheet[-200:-6:33, 12:208:33]  # its pixels are enlarged 33 times
    assert np.array_equal(first, (images[1, 0] * 255).round())


def test_a_model_without_mistakes_has_an_empty_sheet(tmp_path, drawn):
    targets = torch.tensor([1, 2])
    draw_mistakes(torch.rand(2, 3, 4, 4), targets, torch.eye(10)[targets], DIGITS, tmp_path / "mistakes.png")
    assert "0 of 2 images wrong" in texts(drawn[0])
    assert not drawn[0].findobj(standard.Pixels)


def test_displayed_images_are_in_range():
    pixels = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    pixels[0, :, 0, 0], pixels[1, :, 0, 0] = 0, 255  # every channel spans its whole range
    plain = displayable(pixels)
    assert plain.shape == (5, 8, 8, 3)
    assert np.allclose(plain, pixels.permute(0, 2, 3, 1).numpy() / 255)
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.1]))
    assert np.allclose(displayable((pixels / 255 - mean) / deviation), plain, atol=1e-6)
    assert displayable(pixels[:, :1]).shape == (5, 8, 8)
    assert displayable(torch.rand(2, 5, 8, 8)).shape == (2, 8, 8)
    constant = displayable(torch.full((2, 1, 4, 4), -3.0))
    assert ((constant >= 0) & (constant <= 1)).all()


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=6), st.floats(0.01, 1))
def test_labels_are_moved_apart_in_order(values, distance):
    positions = {str(number): value for number, value in enumerate(values)}
    placed = spread(positions, distance)
    ordered = sorted(placed.values())
    assert all(after - before >= distance - 1e-9 for before, after in pairwise(ordered))
    assert sorted(placed, key=placed.__getitem__) == sorted(positions, key=positions.__getitem__)
    alone = sorted(values)
    if all(after - before >= distance for before, after in pairwise(alone)):
        assert placed == pytest.approx(positions)


def test_matplotlibs_settings_do_not_change(tmp_path):
    before = dict(matplotlib.rcParams)
    draw_curves([record(1), record(2)], tmp_path / "curves.png")
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_failure_while_saving_leaves_the_old_file(tmp_path, monkeypatch):
    path = draw_curves([record(1), record(2)], tmp_path / "curves.png")
    before = path.read_bytes()

    def full(self, stream, **options):
        stream.write(b"half")
        raise OSError(28, "no space left")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="no space"):
        draw_curves([record(1)], path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["curves.png"]
