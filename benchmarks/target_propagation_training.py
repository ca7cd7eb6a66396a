"""Images per second of the 4-layer network with sign units and the published settings, beside a straightforward implementation.

    OMP_NUM_THREADS=1 python benchmarks/target_propagation_training.py [--rounds 7] [--batches 8] [--json result.json]

One CPU thread, batch 64, 32 x 32 colour images with random crop from a padding of 4 and random flip, Adam with weight decay, loss
and accuracies tracked. The straightforward side is written here: one image after the other through torchvision's transforms on
PIL images in a DataLoader, Adam as a loop over tensors, a backward pass of the units made of separate operations that forms
``tanh(-tz) + 1`` and its derivative, loss and two accuracies read at every step. Ours is the project's data set, algorithm and
fused Adam, once in the default memory format and once with ``trainer.channels_last``. Rounds alternate, ratios are formed round
by round and their median is the result.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from altprop._torchvision import import_torchvision
from altprop.algorithms.context import Context
from altprop.algorithms.schedule import Schedule
from altprop.algorithms.target_propagation import TargetPropagation
from altprop.data.augmentation import Augmentation
from altprop.data.base import LoadContext
from altprop.data.shapes import Shapes
from altprop.models.threshold_nets import ConvNet4
from altprop.nn.estimators.tanh import SoftHinge
from altprop.nn.hard_units import SignStep

BATCH, SHAPE, CLASSES = 64, (3, 32, 32), 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
LR, DECAY = 2.5e-4, 5e-4


class PlainSign(torch.autograd.Function):
    """Sign forward; backward from the target and its layer loss, operation by operation."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return torch.where(inputs > 0, torch.ones_like(inputs), -torch.ones_like(inputs))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        targets = -torch.sign(upstream[0])
        loss = torch.tanh(-targets * inputs) + 1
        slope = -targets * (1 - (loss - 1) ** 2)
        return upstream[0].abs() * slope


class PlainUnits(nn.Module):
    """Sign units of the straightforward side."""

    def forward(self, inputs: Tensor) -> Tensor:
        return PlainSign.apply(inputs)


class PlainImages(torch.utils.data.Dataset):
    """Images in memory, transformed one by one."""

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        import_torchvision()
        from torchvision import transforms

        self.images, self.targets = images.permute(0, 2, 3, 1).numpy(), targets.tolist()
        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.transform = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.targets[index]


class Straightforward:
    """The straightforward side."""

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        torch.manual_seed(0)
        self.model = ConvNet4(units=PlainUnits, input_shape=SHAPE, num_classes=CLASSES)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LR, weight_decay=DECAY, foreach=False, fused=False)
        self.loader = torch.utils.data.DataLoader(PlainImages(images, targets), BATCH, shuffle=True)
        self.total = [0.0, 0.0, 0.0]

    def batches(self) -> Iterator[list[Tensor]]:
        return iter(self.loader)

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        self.optimizer.zero_grad()
        scores = self.model(inputs)
        loss = nn.functional.cross_entropy(scores, targets)
        loss.backward()
        self.optimizer.step()
        best = scores.topk(5, dim=1).indices == targets[:, None]
        self.total[0] += loss.item()
        self.total[1] += best[:, :1].sum().item()
        self.total[2] += best.sum().item()


class Ours:
    """The project's side."""

    def __init__(self, size: int, channels_last: bool) -> None:
        device = torch.device("cpu")
        data_set = Shapes(
            train_size=size,
            batch_size=BATCH,
            eval_batch_size=1000,
            mean=MEAN,
            std=STD,
            augmentation=Augmentation(padding=4, flip=0.5),
        )
        self.data = data_set.load(LoadContext(Path(), device, 0, channels_last))
        torch.manual_seed(0)
        model = ConvNet4(units=SignStep, input_shape=SHAPE, num_classes=CLASSES)
        if channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.algorithm = TargetPropagation(estimator=SoftHinge())
        context = Context(len(self.data.train), 100, device, 0, SHAPE, CLASSES, BATCH, channels_last=channels_last)
        self.algorithm.setup(model, partial(torch.optim.Adam, lr=LR, weight_decay=DECAY, fused=True), Schedule(), context)
        self.algorithm.epoch_start(0)
        self.epoch = 0
        self.total: dict[str, Tensor] = {}

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.epoch += 1
        return self.data.train.batches(self.epoch)

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        for name, value in self.algorithm.train_step(inputs, targets).items():
            self.total[name] = self.total.get(name, 0) + value


def seconds(batches: Iterator[Any], step: Callable[[Tensor, Tensor], None], count: int) -> float:
    start = time.perf_counter()
    for inputs, targets in islice(batches, count):
        step(inputs, targets)
    return (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = BATCH * 40
    images = torch.randint(256, (size, *SHAPE), dtype=torch.uint8)
    targets = torch.arange(size) % CLASSES
    sides: dict[str, Straightforward | Ours] = {
        "straightforward": Straightforward(images, targets),
        "ours": Ours(size, channels_last=False),
        "ours, channels_last": Ours(size, channels_last=True),
    }
    for side in sides.values():
        seconds(side.batches(), side.step, 3)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            times[name].append(seconds(side.batches(), side.step, arguments.batches))
    results: dict[str, Any] = {"torch": torch.__version__, "batch": BATCH}
    for name in sides:
        ratios = [plain / own for plain, own in zip(times["straightforward"], times[name], strict=True)]
        speed = BATCH / statistics.median(times[name])
        results[name] = {"images_per_second": speed, "speedup": statistics.median(ratios), "speedups": ratios}
        print(
            f"{name:22s} {speed:7.0f} images/s   {statistics.median(ratios):5.2f} times   {min(ratios):.2f} to {max(ratios):.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
