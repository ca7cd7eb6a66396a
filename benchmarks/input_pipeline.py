"""Augmented CIFAR-10-like mini-batches: altprop on ``--device``, compared with torchvision's transforms on the CPU.

    python benchmarks/input_pipeline.py [--images 5000] [--rounds 5] [--device cuda] [--json result.json]

Random pixels, random crop after padding by 4, horizontal flip, normalization, mini-batches of 128. All pipelines run in this
process, one after the other in every round; a ratio is formed in every round.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_least, paired
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from altprop._torchvision import import_torchvision
from altprop.data.augmentation import Augmentation
from altprop.data.base import LoadContext
from altprop.data.loading.device_split import device_splits
from altprop.data.normalization import Normalization

SUITE = "--images 2000 --rounds 5 --clock process"
QUICK = "--images 256 --rounds 2"

MEAN, STD, BATCH = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], 128


class Transformed(Dataset):
    """Images transformed one by one."""

    def __init__(self, images: list, labels: torch.Tensor, transform: Callable) -> None:
        self.images, self.labels, self.transform = images, labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def pipelines(count: int, device: torch.device) -> dict[str, Callable[[], Iterable]]:
    """Return, by name, functions that iterate over the mini-batches of an epoch."""
    tv = import_torchvision()
    from torchvision.transforms import v2

    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 10
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    v1 = tv.transforms
    first = [v1.RandomCrop(32, padding=4), v1.RandomHorizontalFlip(), v1.ToTensor(), v1.Normalize(MEAN, STD)]
    second = [
        v2.RandomCrop(32, padding=4),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ]
    transformed: dict[str, tuple[list, Any]] = {
        "torchvision v1, PIL": (pictures, v1.Compose(first)),
        "torchvision v2, PIL": (pictures, v2.Compose([*second[:2], v2.ToImage(), *second[2:]])),
        "torchvision v2, tensors": (list(pixels), v2.Compose(second)),
    }
    ours, _ = device_splits(
        pixels.to(device),
        labels.to(device),
        batch_size=BATCH,
        eval_batch_size=BATCH,
        drop_last=False,
        normalization=Normalization.of(MEAN, STD, device),
        augmentation=Augmentation(padding=4, padding_mode="zeros", flip=0.5),
        context=LoadContext(Path("."), device, seed=0),
    )
    result: dict[str, Callable[[], Iterable]] = {"altprop": ours.batches}
    for name, (images, transform) in transformed.items():
        result[name] = partial(iter, DataLoader(Transformed(images, labels, transform), BATCH, shuffle=True))
    return result


def consume(batches: Callable[[], Iterable], count: int) -> None:
    assert sum(len(labels) for _, labels in batches()) == count


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=5, clock="wall")
    parser.add_argument("--images", type=int, default=5000)
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    device = torch.device(args.device)
    sides = {name: partial(consume, batches, args.images) for name, batches in pipelines(args.images, device).items()}
    seconds = alternate(sides, args.rounds, Timer(args.clock, device))
    for name, values in seconds.items():
        if name != "altprop":
            ours = seconds["altprop"]
            yield paired("augmented CIFAR-like images", name, values, ours, at_least(10, "target"), measure="images per second")


if __name__ == "__main__":
    main(parser(), rows)
