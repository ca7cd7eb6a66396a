"""Images per second of the 4-layer network with sign units and published settings, compared with a straightforward one.

    OMP_NUM_THREADS=1 python benchmarks/target_propagation_training.py [--rounds 7] [--batches 8] [--device cuda]
        [--json result.json]

One CPU thread, batch 64, 32 x 32 color images with random crop from a padding of 4 and random flip, Adam with weight decay, loss
and accuracies tracked. The straightforward implementation is in this file: torchvision's transforms on one PIL image after
another in a DataLoader, Adam as a loop over tensors, a backward pass of the units that computes ``tanh(-tz) + 1`` and its
derivative in separate operations, and loss and two accuracies read at every step. altprop's side is its data set, algorithm and
fused Adam, once in the default memory format and once with ``trainer.channels_last``. Rounds alternate, a ratio is formed in
every round, and the median is the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_least, paired
from PIL import Image
from subjects import CIFAR, CLASSES, set_up
from torch import Tensor, nn

from altprop._torchvision import import_torchvision
from altprop.algorithms.target_propagation.algorithm import TargetPropagation
from altprop.data.augmentation import Augmentation
from altprop.data.base import LoadContext
from altprop.data.sets.shapes import Shapes
from altprop.models.threshold_nets import ConvNet4
from altprop.nn.estimators.tanh import SoftHinge
from altprop.nn.units.hard import SignStep

SUITE = "--rounds 4 --batches 4 --clock process"
QUICK = "--rounds 2 --batches 1"

BATCH = 64
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
LR, DECAY = 2.5e-4, 5e-4


class PlainSign(torch.autograd.Function):
    """Sign in the forward pass; gradient of the layer loss at the target, in separate operations, in the backward pass."""

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
    """The straightforward implementation."""

    def __init__(self, images: Tensor, targets: Tensor, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        self.model = ConvNet4(units=PlainUnits, input_shape=CIFAR, num_classes=CLASSES).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LR, weight_decay=DECAY, foreach=False, fused=False)
        self.loader = torch.utils.data.DataLoader(PlainImages(images, targets), BATCH, shuffle=True)
        self.total = [0.0, 0.0, 0.0]

    def batches(self) -> Iterator[list[Tensor]]:
        return iter(self.loader)

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        inputs, targets = inputs.to(self.device), targets.to(self.device)
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
    """altprop's implementation."""

    def __init__(self, size: int, channels_last: bool, device: torch.device) -> None:
        data_set = Shapes(
            train_size=size,
            batch_size=BATCH,
            eval_batch_size=1000,
            mean=MEAN,
            std=STD,
            augmentation=Augmentation(padding=4, flip=0.5),
        )
        self.data = data_set.load(LoadContext(Path(), device, 0, channels_last))
        self.algorithm = set_up(
            TargetPropagation(estimator=SoftHinge()),
            partial(self._model, channels_last),
            CIFAR,
            BATCH,
            partial(torch.optim.Adam, lr=LR, weight_decay=DECAY, fused=True),
            device,
            steps_per_epoch=len(self.data.train),
            channels_last=channels_last,
        )
        self.epoch = 0
        self.total: dict[str, Tensor] = {}

    @staticmethod
    def _model(channels_last: bool) -> nn.Module:
        model = ConvNet4(units=SignStep, input_shape=CIFAR, num_classes=CLASSES)
        return model.to(memory_format=torch.channels_last) if channels_last else model  # type: ignore[call-overload]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.epoch += 1
        return self.data.train.batches(self.epoch)

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        for name, value in self.algorithm.train_step(inputs, targets).items():
            self.total[name] = self.total.get(name, 0) + value


def endless(side: Straightforward | Ours) -> Iterator[Any]:
    """Yield the mini-batches of one epoch after another, so that the start of an epoch counts proportionally."""
    while True:
        yield from side.batches()


def train(side: Straightforward | Ours, batches: Iterator[Any], count: int) -> None:
    for inputs, targets in islice(batches, count):
        side.step(inputs, targets)


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=7, clock="wall")
    parser.add_argument("--batches", type=int, default=8)
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    size, device = BATCH * 40, torch.device(args.device)
    images = torch.randint(256, (size, *CIFAR), dtype=torch.uint8)
    targets = torch.arange(size) % CLASSES
    sides: dict[str, Straightforward | Ours] = {
        "straightforward": Straightforward(images, targets, device),
        "ours": Ours(size, False, device),
        "ours, channels_last": Ours(size, True, device),
    }
    rounds = {name: partial(train, side, endless(side), args.batches) for name, side in sides.items()}
    seconds = alternate(rounds, args.rounds, Timer(args.clock, device))
    limits = {"ours": at_least(1.2, "no target; to notice slowdowns"), "ours, channels_last": at_least(1.5, "target")}
    for name, limit in limits.items():
        plain, scale = seconds["straightforward"], 1e3 / args.batches
        what = f"training of convnet4, sign units: {name}"
        yield paired(
            what, "straightforward implementation", plain, seconds[name], limit, scale=scale, measure="images per second"
        )


if __name__ == "__main__":
    main(parser(), rows)
