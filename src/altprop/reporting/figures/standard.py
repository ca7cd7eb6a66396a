"""The standard figures of every run: learning curves, confusion matrix, misclassified images.

Each function takes data and the path of a PNG file to write, and returns this path.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray
from torch import Tensor

from altprop.fonts import readable_names
from altprop.reporting.figures.style import (
    DOTS_PER_INCH,
    GRAY,
    INK,
    SEQUENTIAL,
    SPLIT_COLORS,
    VERMILLION,
    label_ends,
    save,
    styled,
)

LOG_RANGE = 20.0
"""Losses whose largest and smallest value differ by more than this factor are drawn on a logarithmic axis."""
ANNOTATED_CLASSES = 25
"""A confusion matrix of up to this many classes shows its counts as numbers."""
NAMED_CLASSES = 200
"""A confusion matrix of up to this many classes shows the names of the classes."""
_CELL, _PICTURE, _HEADING = (1.45, 1.8), 1.35, 0.4
"""Width and height of a cell of the sheet of misclassified images, the longer side of its picture, and the heading: inches."""
_MARGIN = 6
"""Pixels below a picture."""
_LABELS = {"train_plain": "train, plain"}

Series = tuple[list[float], list[float]]
"""Epochs and values of one curve."""


def draw_curves(records: Iterable[Mapping[str, float]], path: Path, *, title: str = "") -> Path:
    """Draw loss and accuracy (percent) over epochs for every split in ``records`` (metrics.jsonl).

    ``train`` is the running mean during training; ``train_plain`` is evaluated afterwards on training images without
    augmentation. Raises ``ValueError`` if the records contain neither a loss nor an accuracy.
    """
    records = list(records)
    panels = [(metric, series_of(records, metric)) for metric in ("loss", "accuracy")]
    panels = [(metric, curves) for metric, curves in panels if curves]
    if not panels:
        raise ValueError("no curves to draw: no record contains a loss or an accuracy")
    with styled():
        figure = Figure(figsize=(4.6 * len(panels), 3.2))
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=9, color=GRAY)
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (metric, curves) in zip(grid, panels):
            _draw_panel(axes, metric, curves)
        return save(figure, path)


def series_of(records: Iterable[Mapping[str, float]], metric: str) -> dict[str, Series]:
    """The finite values of ``metric`` by split, in the order of the records; splits without any are left out."""
    curves: dict[str, Series] = {}
    for record in records:
        for split in SPLIT_COLORS:
            value = record.get(f"{split}/{metric}")
            if value is not None and math.isfinite(value):
                epochs, values = curves.setdefault(split, ([], []))
                epochs.append(record["epoch"])
                values.append(value)
    return {split: curves[split] for split in SPLIT_COLORS if split in curves}


def _draw_panel(axes: Axes, metric: str, curves: Mapping[str, Series]) -> None:
    for split, (epochs, values) in curves.items():
        marker = "o" if len(epochs) <= 20 else None
        axes.plot(epochs, values, color=SPLIT_COLORS[split], marker=marker, markersize=3, clip_on=False)
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    everything = [value for _, values in curves.values() for value in values]
    if metric == "loss":
        axes.set_title("Loss")
        if min(everything) > 0 and max(everything) > LOG_RANGE * min(everything):
            axes.set_yscale("log")
            decades = math.log10(max(everything) / min(everything))
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1,)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        form = "{:.3g}"
    else:
        axes.set_title("Accuracy (percent)")
        axes.set_ylim(top=min(100.0, axes.get_ylim()[1]))
        form = "{:.2f}"
    label_ends(
        axes,
        {
            f"{_LABELS.get(split, split)} {form.format(values[-1])}": (values[-1], SPLIT_COLORS[split])
            for split, (_, values) in curves.items()
        },
    )


def confusion_matrix(targets: Tensor, predicted: Tensor, num_classes: int) -> NDArray[np.int64]:
    """How often samples of each class (row) were predicted to be of each class (column): counts ``[classes, classes]``.

    ``targets`` and ``predicted`` are class numbers ``[samples]``.
    """
    cells = targets.long().flatten().cpu() * num_classes + predicted.long().flatten().cpu()
    return np.asarray(cells.bincount(minlength=num_classes**2).reshape(num_classes, num_classes).numpy())


def draw_confusion(targets: Tensor, predicted: Tensor, class_names: Sequence[str], path: Path, *, title: str = "") -> Path:
    """Draw the confusion matrix: colors are percentages of the true class, numbers are counts.

    ``targets`` and ``predicted`` are class numbers ``[samples]``. Counts are shown for up to 25 classes, names for up to 200.
    """
    class_names = readable_names(class_names)
    counts = confusion_matrix(targets, predicted, len(class_names))
    percent = 100.0 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(class_names)
    side = float(np.clip(0.48 * classes, 3.6, 12.0))
    with styled():
        figure = Figure(figsize=(side + 2.2, side + 1.2), layout="compressed")
        axes = figure.subplots()
        # Errors are a few percent and the diagonal is nearly 100; a power scale shows both.
        image = axes.imshow(percent, cmap=SEQUENTIAL, norm=PowerNorm(0.4, 0, 100), interpolation="nearest")
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, ticks=[0, 1, 5, 20, 50, 100])
        bar.set_label("percent of the true class")
        bar.outline.set_visible(False)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        accuracy = 100.0 * np.trace(counts) / max(1, counts.sum())
        heading = f"{accuracy:.2f} % of {counts.sum():,} right"
        axes.set_title(f"{title}: {heading}" if title else heading)
        _name_classes(axes, class_names, side)
        if classes <= ANNOTATED_CLASSES:
            _write_counts(axes, counts, percent)
        return save(figure, path)


def _name_classes(axes: Axes, class_names: Sequence[str], side: float) -> None:
    classes = len(class_names)
    if classes > NAMED_CLASSES:  # keep the axis's own ticks, which are class numbers
        return
    size = float(np.clip(0.8 * 72 * side / classes, 3.0, 9.0))
    names = [name if len(name) <= 16 else f"{name[:15]}…" for name in class_names]
    upright = all(len(name) <= 3 for name in names)
    axes.set_xticks(range(classes), names, rotation=0 if upright else 90, fontsize=size)
    axes.set_yticks(range(classes), names, fontsize=size)
    axes.tick_params(length=0)


def _write_counts(axes: Axes, counts: NDArray[np.int64], percent: NDArray[np.float64]) -> None:
    size = 8 if counts.max() < 10_000 else 6
    for row, column in np.argwhere(counts):
        color = "white" if percent[row, column] > 30 else "black"  # readable on both sides of the power scale
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=color, fontsize=size)


def draw_mistakes(
    images: Tensor, targets: Tensor, scores: Tensor, class_names: Sequence[str], path: Path, *, limit: int = 40, title: str = ""
) -> Path:
    """Draw misclassified images, each with its true → predicted class and the predicted class's score.

    The mistakes with the largest margin between the two scores come first. ``images`` are bytes or floats ``[samples, channels,
    height, width]`` (see :func:`displayable`), ``targets`` class numbers ``[samples]`` and ``scores`` the model's outputs
    ``[samples, classes]`` on any scale. At most ``limit`` images are shown.
    """
    class_names = readable_names(class_names)
    targets, scores = targets.cpu(), scores.float().cpu()
    predicted = scores.argmax(dim=1)
    wrong = (predicted != targets).nonzero().flatten()
    margin = scores[wrong, predicted[wrong]] - scores[wrong, targets[wrong]]
    indices = wrong[margin.argsort(descending=True, stable=True)][:limit]
    heading = f"{len(wrong):,} of {len(targets):,} images wrong"
    if len(wrong) > len(indices):
        heading += f", the {len(indices)} most confident"
    heading += " (true → predicted, its score)" if len(indices) else ""
    pictures = displayable(images[indices.to(images.device)])
    columns = min(8, max(4, len(indices)))
    rows = max(1, math.ceil(len(indices) / columns))
    brief = all(len(name) <= 4 for name in class_names)
    with styled():
        size = (columns * _CELL[0], rows * _CELL[1] + _HEADING)
        # One image of all pictures takes a tenth of the time that an Axes for each of them takes.
        figure = Figure(figsize=size, dpi=DOTS_PER_INCH)
        figure.set_layout_engine("none")
        figure.suptitle(f"{title}: {heading}" if title else heading, x=0.01, ha="left", fontweight="bold", fontsize=10)
        if len(indices):
            sheet, tops = _sheet(pictures, columns, rows)
            figure.add_artist(Pixels(sheet))
            for (x, y), index in zip(tops, indices.tolist()):
                true, guess = (_short(class_names[int(number)]) for number in (targets[index], predicted[index]))
                names = [(f"{true} → {guess}", VERMILLION)] if brief else [(true, INK), (f"→ {guess}", VERMILLION)]
                lines = [*names, (f"{scores[index, predicted[index]]:.2f}", GRAY)]
                for number, (text, color) in enumerate(reversed(lines)):
                    place = (x / size[0], (y + (2 + 9 * number) / 72) / size[1])
                    figure.text(*place, text, ha="center", va="bottom", fontsize=7.5, color=color)
        return save(figure, path)


class Pixels(Artist):
    """Pixels of a whole figure, which are copied as they are: ``values`` ``[height, width, 4]`` uint8, opaque."""

    def __init__(self, values: NDArray[np.uint8]) -> None:
        super().__init__()
        self.values = values

    def draw(self, renderer: Any) -> None:
        """Copy the pixels."""
        context = renderer.new_gc()
        renderer.draw_image(context, 0, 0, self.values[::-1])
        context.restore()


def _sheet(pictures: NDArray[Any], columns: int, rows: int) -> tuple[NDArray[np.uint8], list[tuple[float, float]]]:
    """``pictures`` ``[samples, height, width, …]`` enlarged on white, and in inches from the lower left the top of each.

    Values are floats in 0..1, with or without three channels at the end. The sheet has ``columns`` times ``rows`` cells. Pixels
    are enlarged by a whole number if they fit, without smoothing.
    """
    cell_width, cell_height = (round(DOTS_PER_INCH * inches) for inches in _CELL)
    height, width = pictures.shape[1:3]
    largest = round(DOTS_PER_INCH * _PICTURE)
    factor = largest / max(height, width)
    factor = math.floor(factor) if factor >= 1 else factor
    tall, wide = (max(1, round(factor * side)) for side in (height, width))
    down, across = (np.arange(size) * side // size for size, side in ((tall, height), (wide, width)))
    colors = np.rint(255 * (pictures if pictures.ndim == 4 else pictures[..., None])).astype(np.uint8)
    sheet = np.full((rows * cell_height, columns * cell_width, 4), 255, dtype=np.uint8)
    tops = []
    for number, picture in enumerate(colors):
        row, column = divmod(number, columns)
        bottom, left = (row + 1) * cell_height - _MARGIN, column * cell_width + (cell_width - wide) // 2
        sheet[bottom - tall : bottom, left : left + wide, :3] = picture[down][:, across]
        tops.append(((left + wide / 2) / DOTS_PER_INCH, (len(sheet) - bottom + tall) / DOTS_PER_INCH))
    return sheet, tops


def displayable(images: Tensor) -> NDArray[Any]:
    """``images`` ``[samples, channels, height, width]`` as Matplotlib shows them, as floats in 0..1.

    Returns colors ``[samples, height, width, 3]`` for three channels, and otherwise the mean of the channels as gray levels
    ``[samples, height, width]``. Bytes are divided by 255. Floats within 0..1 are not changed; others are assumed to be
    normalized, and every channel is rescaled to 0..1 over all images.
    """
    values = images.detach().cpu()
    if values.dtype == torch.uint8:
        values = values.float() / 255.0
    else:
        values = torch.nan_to_num(values.float())
        if values.numel() and (values.min() < 0 or values.max() > 1):
            low, high = (extreme(values, dim=(0, 2, 3), keepdim=True) for extreme in (torch.amin, torch.amax))
            values = (values - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    if values.shape[1] == 3:
        return np.asarray(values.permute(0, 2, 3, 1).numpy())
    return np.asarray(values.mean(dim=1).numpy())


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"
