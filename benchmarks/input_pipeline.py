"""Augmented CIFAR-10-like mini-batches on one CPU core: ours against torchvision's transforms in a DataLoader.

``python benchmarks/input_pipeline.py [--images 5000] [--rounds 5]``: random pixels, random crop after padding by 4, horizontal
flip, normalisation, mini-batches of 128. All contenders run in this process, one after the other in every round; the best round
of each counts. Prints a table and one line of JSON; exits with 1 where ours is less than 10 times as fast as the fastest other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from altprop._torchvision import import_torchvision
from altprop.data.augmentation import Augmentation
from altprop.data.base import LoadContext
from altprop.data.device_split import device_splits
from altprop.data.normalisation import Normalisation

MEAN, STD, BATCH = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], 128
CPU = torch.device("cpu")
WANTED = 10


class Transformed(Dataset):
    """Images through ``transform``, one by one."""

    def __init__(self, images: list, labels: torch.Tensor, transform: Callable) -> None:
        self.images, self.labels, self.transform = images, labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def contenders(count: int) -> dict[str, Callable[[int], Iterable]]:
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
    loaders = {
        "torchvision v1, PIL": DataLoader(Transformed(pictures, labels, v1.Compose(first)), BATCH, shuffle=True),
        "torchvision v2, PIL": DataLoader(
            Transformed(pictures, labels, v2.Compose([*second[:2], v2.ToImage(), *second[2:]])), BATCH, shuffle=True
        ),
        "torchvision v2, tensors": DataLoader(Transformed(list(pixels), labels, v2.Compose(second)), BATCH, shuffle=True),
    }
    ours, _ = device_splits(
        pixels,
        labels,
        batch_size=BATCH,
        eval_batch_size=BATCH,
        drop_last=False,
        normalisation=Normalisation.of(MEAN, STD, CPU),
        augmentation=Augmentation(4, "zeros", 0.5),
        context=LoadContext(Path("."), CPU, seed=0),
    )
    result: dict[str, Callable[[int], Iterable]] = {"altprop": ours.batches}
    for name, loader in loaders.items():
        result[name] = lambda epoch, loader=loader: loader
    return result


def seconds(batches: Iterable, count: int) -> float:
    start = time.perf_counter()
    seen = sum(len(labels) for _, labels in batches)
    elapsed = time.perf_counter() - start
    assert seen == count
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    everyone = contenders(given.images)
    times: dict[str, list[float]] = {name: [] for name in everyone}
    for epoch in range(given.rounds):
        for name, batches in everyone.items():
            times[name].append(seconds(batches(epoch), given.images))
    rates = {name: given.images / min(values) for name, values in times.items()}
    ratios = {name: rates["altprop"] / rate for name, rate in rates.items() if name != "altprop"}
    for name, rate in rates.items():
        ratio = f"   altprop is {ratios[name]:.1f} times as fast" if name in ratios else ""
        print(f"{name:<24} {rate:>10,.0f} images/s{ratio}")
    result = {
        "images_per_second": {name: round(rate) for name, rate in rates.items()},
        "ratio": {name: round(ratio, 1) for name, ratio in ratios.items()},
        "slowest_ratio": round(min(ratios.values()), 1),
        "images": given.images,
        "rounds": given.rounds,
        "torch": torch.__version__,
        "torchvision": import_torchvision().__version__,
        "processor": platform.machine(),
    }
    print(json.dumps(result))
    sys.exit(0 if min(ratios.values()) >= WANTED else 1)


if __name__ == "__main__":
    main()
