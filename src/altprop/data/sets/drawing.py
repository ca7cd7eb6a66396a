"""Small color images of ten shapes, drawn many at a time.

Coordinates run from -1 to 1 across the image. Each shape is a function of the coordinates ``u`` and ``v``, both in units of its
radius, and returns a signed distance in the same unit: negative inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

SIZE = 32
CHUNK = 500
"""Images drawn at once. Each chunk has its own random stream, so that the first n images do not depend on how many follow."""
CLUTTER = 3
SOFT_EDGE = 1.5 / SIZE


def disc(u: Tensor, v: Tensor) -> Tensor:
    """A filled circle."""
    return torch.hypot(u, v) - 0.9


def ring(u: Tensor, v: Tensor) -> Tensor:
    """The outline of a circle."""
    return (torch.hypot(u, v) - 0.72).abs() - 0.2


def square(u: Tensor, v: Tensor) -> Tensor:
    """A filled square."""
    return torch.maximum(u.abs(), v.abs()) - 0.78


def frame(u: Tensor, v: Tensor) -> Tensor:
    """The outline of a square."""
    return (torch.maximum(u.abs(), v.abs()) - 0.64).abs() - 0.18


def triangle(u: Tensor, v: Tensor) -> Tensor:
    """An equilateral triangle."""
    return torch.maximum(-v, math.sqrt(0.75) * u.abs() + 0.5 * v) - 0.5


def cross(u: Tensor, v: Tensor) -> Tensor:
    """Two bars at right angles."""
    long, wide = torch.maximum(u.abs(), v.abs()), torch.minimum(u.abs(), v.abs())
    return torch.maximum(long - 0.95, wide - 0.28)


def star(u: Tensor, v: Tensor) -> Tensor:
    """A five-pointed star."""
    sector = 2 * math.pi / 5
    angle = (torch.remainder(torch.atan2(u, v) + sector / 2, sector) - sector / 2).abs()
    radius = torch.hypot(u, v)
    # Folding leaves half of one point of the star: the line from its tip (0, 1) to its notch at radius 0.42.
    across, along = radius * angle.sin(), radius * angle.cos()
    notch_across, notch_along = 0.42 * math.sin(sector / 2), 0.42 * math.cos(sector / 2)
    normal = (1 - notch_along, notch_across)
    return (across * normal[0] + (along - 1) * normal[1]) / math.hypot(*normal)


def crescent(u: Tensor, v: Tensor) -> Tensor:
    """A disc with a bite taken out of it."""
    return torch.maximum(torch.hypot(u, v) - 0.95, 0.72 - torch.hypot(u - 0.5, v))


def bars(u: Tensor, v: Tensor) -> Tensor:
    """Three parallel bars."""
    return torch.maximum(torch.maximum(v.abs(), u.abs()) - 0.9, 0.18 - (torch.remainder(u + 0.3, 0.6) - 0.3).abs())


def half_disc(u: Tensor, v: Tensor) -> Tensor:
    """Half of a disc."""
    return torch.maximum(torch.hypot(u, v + 0.4) - 0.95, -v - 0.4)


SHAPES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    disc,
    ring,
    square,
    frame,
    triangle,
    cross,
    star,
    crescent,
    bars,
    half_disc,
)
CLASS_NAMES = tuple(shape.__name__.replace("_", " ") for shape in SHAPES)


def draw_chunk(count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` images ``[count, 3, 32, 32]`` uint8. Image i shows shape i modulo ten."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    axis = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    y, x = axis.view(1, SIZE, 1), axis.view(1, 1, SIZE)

    ground = uniform(0, 0.8, 3, 1, 1)
    figure = ground + _contrast(ground, uniform(0.15, 0.65, 3, 1, 1), uniform(0, 1, 1, 1, 1))
    image = ground + _texture(uniform, x, y)
    for _ in range(CLUTTER):
        image = _clutter(image, uniform, x, y)

    radius, turn = uniform(0.45, 0.85, 1, 1), uniform(-0.5, 0.5, 1, 1)
    x0, y0 = x - uniform(-0.25, 0.25, 1, 1), y - uniform(-0.25, 0.25, 1, 1)
    u, v = (turn.cos() * x0 + turn.sin() * y0) / radius, (turn.cos() * y0 - turn.sin() * x0) / radius
    distance = torch.empty(count, SIZE, SIZE)
    for number, shape in enumerate(SHAPES):
        distance[number :: len(SHAPES)] = shape(u[number :: len(SHAPES)], v[number :: len(SHAPES)])
    image = _cover(image, figure + _texture(uniform, x, y), distance * radius)
    image = _clutter(image, uniform, x, y)

    image = image + torch.randn(image.shape, generator=generator) * uniform(0.0, 0.08, 1, 1, 1)
    return image.clamp_(0, 1).mul_(255).round_().to(torch.uint8)


def _contrast(ground: Tensor, amount: Tensor, side: Tensor) -> Tensor:
    """Return a color difference of the given size in each channel: brighter in 70 % of images, unless that leaves [0, 1]."""
    sign = torch.where(side < 0.3, -1.0, 1.0)
    fits = (ground + sign * amount).clamp(0, 1) == ground + sign * amount
    return torch.where(fits, sign, -sign) * amount


def _texture(uniform: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Return stripes ``[count, 1, 32, 32]`` of random direction, width, phase and strength; some are too faint to see."""
    direction, frequency = uniform(-math.pi, math.pi, 1, 1), uniform(2, 12, 1, 1)
    waves = torch.sin(frequency * (x * direction.cos() + y * direction.sin()) + uniform(-math.pi, math.pi, 1, 1))
    return (waves * uniform(0, 0.12, 1, 1))[:, None]


def _clutter(image: Tensor, uniform: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Add an ellipse of random color and shape, from a dot to a line, to three images out of five."""
    turn, x0, y0 = uniform(-math.pi, math.pi, 1, 1), x - uniform(-1, 1, 1, 1), y - uniform(-1, 1, 1, 1)
    along, across = turn.cos() * x0 + turn.sin() * y0, turn.cos() * y0 - turn.sin() * x0
    length, width = uniform(0.05, 0.5, 1, 1), uniform(0.04, 0.1, 1, 1)
    visible = uniform(0, 1, 1, 1) < 0.6
    distance = (torch.hypot(along / length, across / width) - 1) * width
    return _cover(image, uniform(0, 1, 3, 1, 1), torch.where(visible, distance, 1.0))


def _cover(image: Tensor, color: Tensor, distance: Tensor) -> Tensor:
    """Return ``color`` where ``distance`` ``[count, 32, 32]`` is negative and ``image`` elsewhere, blended along a soft edge."""
    share = (0.5 - distance / SOFT_EDGE).clamp_(0, 1)[:, None]
    return torch.lerp(image, color.expand_as(image), share.expand_as(image))
