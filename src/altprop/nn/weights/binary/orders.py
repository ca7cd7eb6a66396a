"""The order in which layers become binary: forward, reverse, random, published, explicit, or by measured sensitivity.

The layers that become binary have positions 1..L in forward order. An order is a permutation of them; its first entry is
binarized first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from altprop.files import read_json
from altprop.problems import ConfigError, Problem, nearest
from altprop.ranges import NonNegativeInt, Text

Order = Text | NonNegativeInt | Sequence[NonNegativeInt | Text]
"""A word of :data:`WORDS` or :data:`PUBLISHED`; a position, which means that layer first, then those after it, then those before
it; or a list of positions or layer names."""

FROM_SENSITIVITY = "from_sensitivity"
WORDS = ("forward", "reverse", "random", FROM_SENSITIVITY)

_ASCENDING = {
    "vgg5": (5, 4, 1, 3, 2),
    "vgg9": (8, 9, 1, 7, 6, 3, 5, 2, 4),
    "resnet20": (19, 6, 5, 7, 1, 9, 12, 4, 8, 3, 14, 11, 15, 18, 2, 13, 10, 16, 17, 20),
    "resnet21": (13, 10, 5, 14, 9, 3, 2, 7, 18, 6, 17, 4, 1, 16, 15, 20, 11, 12, 19, 8, 21),
}
PUBLISHED: dict[str, tuple[int, ...]] = {
    **{f"{net}_ascend": order for net, order in _ASCENDING.items()},
    **{f"{net}_descend": order[::-1] for net, order in _ASCENDING.items()},
    "vgg5_random": (2, 5, 1, 3, 4),
    "vgg9_random": (3, 8, 1, 5, 6, 9, 2, 4, 7),
    "resnet20_random": (4, 14, 10, 11, 13, 6, 9, 2, 15, 8, 17, 7, 18, 16, 20, 5, 1, 19, 12, 3),
}
"""The orders of the paper's experiments, as positions (section 3.2): ascending and descending sensitivity, one random draw."""


def rotation(first: int, length: int) -> tuple[int, ...]:
    """Return ``first``, ``first`` + 1, .., ``length``, 1, .., ``first`` - 1, the order that the paper names by a number."""
    return tuple((first - 1 + step) % length + 1 for step in range(length))


def random_order(length: int, generator: torch.Generator) -> tuple[int, ...]:
    """Return a uniformly drawn permutation of 1..``length``."""
    return tuple((torch.randperm(length, generator=generator) + 1).tolist())


def resolve_order(
    order: Order, layers: Sequence[str], generator: torch.Generator, key: str, every: Sequence[str] = ()
) -> tuple[int, ...]:
    """Return ``order`` as a permutation of the positions of ``layers`` (names in forward order).

    ``every`` are the names of all layers if some of them stay in floating point: a published order or a list of as many entries
    is about all of them, and the others are left out. ``from_sensitivity`` is not resolved here but by :func:`read_order`. Raises
    ``ConfigError`` about ``key``, with the list of layers, if the order has a wrong length or names an unknown layer or the same
    layer twice.
    """
    length = len(layers)
    if order == "forward":
        return tuple(range(1, length + 1))
    if order == "reverse":
        return tuple(range(length, 0, -1))
    if order == "random":
        return random_order(length, generator)
    if isinstance(order, int):
        if not 1 <= order <= length:
            raise _refused(key, f"{order} is not the position of a layer", layers)
        return rotation(order, length)
    entries = PUBLISHED[order] if isinstance(order, str) else order
    if len(entries) == len(every) != length:
        names = [every[place - 1] for place in _permutation(entries, every, key)]
        return tuple(layers.index(name) + 1 for name in names if name in layers)
    if isinstance(order, str):
        return _permutation(PUBLISHED[order], layers, key, f"{order} has {len(PUBLISHED[order])} layers")
    return _permutation(order, layers, key)


def read_order(path: str, layers: Sequence[str], key: str) -> tuple[int, ...]:
    """Return the order that ``task=rank_layers`` wrote to ``path``: ``{"order": [3, 1, 2], "layers": [names], ...}``.

    Raises ``ConfigError`` about ``key`` if the file does not exist, holds something else, or is about other layers.
    """
    content = read_json(Path(path))
    if content is None:
        fix = "experiment=<paper>/<net>_sens task=rank_layers"
        raise ConfigError([Problem(key, f"there is no readable file {path}", "the file that ranking the layers wrote", fix)])
    order, names = (content.get("order"), content.get("layers")) if isinstance(content, dict) else (None, None)
    if not isinstance(order, list) or not isinstance(names, list):
        raise ConfigError([Problem(key, f"{path} does not hold an order", "the file that ranking the layers wrote")])
    if names != list(layers):
        raise _refused(key, f"{path} is about the layers {', '.join(map(str, names))}", layers)
    return _permutation(order, layers, key)


def _permutation(entries: Sequence[int | str], layers: Sequence[str], key: str, wrong_length: str = "") -> tuple[int, ...]:
    """Return ``entries`` as positions if every layer occurs once.

    Raises ``ConfigError`` otherwise; ``wrong_length`` describes the problem if their number is wrong.
    """
    positions = {name: place for place, name in enumerate(layers, start=1)}
    order = [positions.get(entry) if isinstance(entry, str) else entry for entry in entries]
    unknown = [entry for entry, place in zip(entries, order) if place not in positions.values()]
    repeated = sorted({entry for entry in entries if entries.count(entry) > 1}, key=str)
    if len(order) != len(layers):
        raise _refused(key, wrong_length or f"{list(entries)} has {len(entries)} entries", layers)
    if unknown:
        raise _refused(key, f"{', '.join(map(str, unknown))}: no such layer", layers)
    if repeated or len(set(order)) != len(order):
        raise _refused(key, f"{', '.join(map(str, repeated or entries))}: more than once", layers)
    return tuple(place for place in order if place is not None)


def _refused(key: str, description: str, layers: Sequence[str]) -> ConfigError:
    listed = ", ".join(f"{place} {name}" for place, name in enumerate(layers, start=1))
    return ConfigError([Problem(key, description, f"each of the {len(layers)} layers once: {listed}", f"{key}=forward")])


def order_problems(config: Mapping[str, Any], key: str) -> Iterator[Problem]:
    """Yield the problems of ``order`` and ``order_file`` in the node ``config`` at ``key`` that show without the model."""
    order, file = config.get("order", "forward"), config.get("order_file")
    if isinstance(order, str) and order not in (*WORDS, *PUBLISHED):
        close = nearest(order, (*WORDS, *PUBLISHED))
        allowed = f"{', '.join((*WORDS, *PUBLISHED))}, a position, or a list of positions or layer names"
        yield Problem(f"{key}.order", repr(order), allowed, f"{key}.order={close}" if close else "")
    if order == FROM_SENSITIVITY and not file:
        description = "is not set, but the order is read from it"
        fix = f"{key}.order_file=<paths.outputs>/<name>/order.json"
        yield Problem(f"{key}.order_file", description, "the file that ranking the layers writes", fix)
    if order != FROM_SENSITIVITY and file:
        description = f"{file} with order={order}"
        yield Problem(f"{key}.order_file", description, "null, it is only read with order=from_sensitivity")
