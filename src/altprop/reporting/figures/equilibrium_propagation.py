"""Figures of equilibrium propagation: the check of the theorem, activity, convergence of the phases, and weight angles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from altprop.reporting.figures.style import BLUE, GRAY, INK, ORANGE, PURPLE, SKY, VERMILLION, save, styled

ENTRIES = 3
"""Number of a parameter's entries whose curves are drawn."""
BINS = 50


def draw_series(
    name: str, forward: Tensor, backward: Tensor, path: Path, *, opposite: Tensor | None = None, seed: int = 0
) -> Path:
    """Draw cumulative curves of three random entries of a parameter or layer, as the paper does.

    The entries are drawn among those with a gradient. ``forward``, ``backward`` and ``opposite`` are ``[time, *shape]``.
    Backpropagation through time (``backward``) is solid; one-sided estimates (``forward`` and ``opposite``) are dotted; their
    mean, the symmetric estimate, is dashed.
    """
    curves = {"backward": _sums(backward), "forward": _sums(forward)}
    if opposite is not None:
        curves["opposite"] = _sums(opposite)
        curves["symmetric"] = 0.5 * (curves["forward"] + curves["opposite"])
    moving = curves["backward"].abs().amax(dim=0).nonzero().flatten()  # weights of pixels that are always black have no gradient
    count = max(len(moving), 1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:ENTRIES]
    entries = moving[order].tolist() if len(moving) else [0]
    looks = {
        "backward": ("-", "BPTT"),
        "forward": (":", "one-sided" if opposite is None else "one-sided, both signs"),
        "opposite": (":", None),
        "symmetric": ("--", "symmetric"),
    }
    with styled():
        figure = Figure(figsize=(4.4, 3.2))
        axes = figure.subplots()
        for entry, color in zip(entries, (BLUE, VERMILLION, PURPLE)):
            for kind, values in curves.items():
                line, label = looks[kind]
                axes.plot(values[:, entry], line, color=color, lw=1.4, label=label if entry == entries[0] else None)
        axes.set_title(name)
        axes.set_xlabel("time steps of the second phase")
        axes.set_ylabel("cumulative estimate")
        for handle in axes.legend(frameon=False, fontsize=8).legend_handles:
            handle.set_color(INK)  # type: ignore[union-attr]
        return save(figure, path)


def draw_bias_bars(ratios: Mapping[str, float], path: Path) -> Path:
    """Draw a bar per weight: the share of the one-sided estimates' error that averaging leaves (1: no gain, 0: no error left)."""
    with styled():
        figure = Figure(figsize=(2.2 + 0.7 * len(ratios), 3.4))
        axes = figure.subplots()
        bars = axes.bar(range(len(ratios)), list(ratios.values()), color=BLUE, width=0.6)
        axes.bar_label(bars, fmt="%.2f", fontsize=8, color=INK, padding=2)
        axes.axhline(1.0, color=GRAY, lw=1, ls="--")
        axes.set_xticks(range(len(ratios)), [_short(name) for name in ratios], rotation=45 if len(ratios) > 6 else 0)
        axes.set_ylim(0, max(1.15, 1.1 * max(ratios.values(), default=1.0)))
        axes.set_ylabel("error left by symmetry")
        axes.grid(visible=False, axis="x")
        return save(figure, path)


def draw_activity(states: Sequence[Tensor], path: Path) -> Path:
    """Draw a histogram of every layer's units at one mini-batch's free state; each state is ``[batch, *shape]``."""
    with styled():
        figure = Figure(figsize=(2.2 * len(states) + 0.4, 2.4))
        grid = figure.subplots(1, len(states), squeeze=False)[0]
        for index, (axes, state) in enumerate(zip(grid, states)):
            values = state.detach().float().cpu().numpy().ravel()
            axes.hist(values, bins=BINS, weights=np.full(len(values), 100.0 / len(values)), color=BLUE)
            axes.set_title(f"state {index + 1}")
            axes.set_xlabel("activity")
        grid[0].set_ylabel("% of units")
        return save(figure, path)


def draw_convergence(phases: Mapping[str, Tensor], path: Path, *, converged: float) -> Path:
    """Draw the largest change of any unit in every time step on a logarithmic scale.

    ``phases`` maps the name of each phase to its changes ``[steps, layers]``. A dashed line shows the threshold ``converged``.
    """
    colors = (BLUE, VERMILLION, ORANGE, PURPLE, SKY, GRAY)
    with styled():
        figure = Figure(figsize=(3.6 * len(phases) + 0.8, 3.0))
        grid = figure.subplots(1, len(phases), squeeze=False, sharey=True)[0]
        for axes, (phase, changes) in zip(grid, phases.items()):
            values = changes.detach().double().cpu().numpy()
            for layer in range(values.shape[1]):
                positive = np.where(values[:, layer] > 0, values[:, layer], np.nan)
                axes.semilogy(
                    range(1, len(positive) + 1), positive, color=colors[layer % len(colors)], label=f"state {layer + 1}"
                )
            axes.axhline(converged, color=GRAY, lw=1, ls="--")
            axes.set_title(f"{phase} phase")
            axes.set_xlabel("time step")
        grid[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        grid[0].set_ylabel("largest change of a unit")
        grid[-1].legend(frameon=False, fontsize=8)
        return save(figure, path)


def draw_angles(epochs: Sequence[float], angles: Mapping[str, Sequence[float]], path: Path) -> Path:
    """Draw the angles (degrees) between forward and feedback weights of a vector-field network over epochs."""
    colors = (BLUE, VERMILLION, ORANGE, PURPLE, SKY, GRAY)
    with styled():
        figure = Figure(figsize=(4.4, 3.0))
        axes = figure.subplots()
        for (name, values), color in zip(angles.items(), colors * len(angles)):
            axes.plot(epochs, values, color=color, marker="o", ms=3, label=_short(name))
        axes.set_ylim(0, max(95.0, *(value for values in angles.values() for value in values)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("angle to the forward weights (degrees)")
        axes.legend(frameon=False, fontsize=8)
        return save(figure, path)


def _sums(series: Tensor) -> Tensor:
    return series.detach().flatten(1).cpu().cumsum(dim=0)


def _short(name: str) -> str:
    """``layers.0.weight`` -> ``W1``, ``feedback.0.weight`` -> ``B1``."""
    kind, index, *_ = name.split(".")
    return f"{'B' if kind == 'feedback' else 'W'}{int(index) + 1}"
