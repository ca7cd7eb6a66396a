"""Images per second of airbench's network in altprop's loop, compared with a bare loop as its paper describes it.

    python benchmarks/airbench.py --device cuda --clock wall [--rounds 5] [--epochs 2] [--json result.json]

Network and loop follow Jordan (2024), *94% on CIFAR-10 in 3.29 Seconds on a Single GPU*, arXiv 2404.00498; they were written from
the text for this benchmark. The bare loop has half-precision weights on CUDA, images on the device that are padded once, one
translation and an alternating flip of all images per epoch, label smoothing, Nesterov momentum with a rate of its own for the
biases of batch norms, a triangular schedule and Lookahead. altprop's loop trains the same network on as many images with its own
data set, crops and flips, under bf16 autocast on CUDA, and records loss and accuracy, which the bare loop does not. The frozen
whitening filters start from noise instead of patches of CIFAR-10, because accuracy is not measured here. A round is ``--epochs``
epochs. On a CPU both sides compute in fp32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from command_line import main, standard_parser
from loop_overhead import loop_on, ours
from measuring import Row, Timer, alternate, at_least, paired
from subjects import CIFAR, CLASSES, set_up
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from altprop.algorithms.backprop import Backprop
from altprop.data.augmentation import Augmentation
from altprop.data.base import Data, LoadContext
from altprop.data.sets.in_memory import Images, InMemory, RawData
from altprop.models.base import FeedForward

SUITE = "--images 256 --batch 64 --epochs 1 --rounds 2 --widths 8 16 16"
QUICK = "--images 64 --batch 32 --epochs 1 --rounds 1 --widths 4 4 4"

WIDTHS = (64, 256, 256)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
RATE, MOMENTUM, DECAY, BIAS_SCALE, SMOOTHING = 11.5, 0.85, 0.0153, 64.0, 0.2
"""Rate and decay for 1024 examples, as in the paper; ``BIAS_SCALE`` multiplies the rate of the biases of batch norms."""
LOOKAHEAD_EVERY = 5
PADDING = 2


class FixedScaleNorm(nn.BatchNorm2d):
    """Batch norm that learns only its bias."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad_(False)


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3 x 3 convolution that starts as the identity of as many channels as there are on both sides."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


class Block(nn.Sequential):
    """Two convolutions, the first with max pooling, each with batch norm and GELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            convolution(inputs, outputs),
            nn.MaxPool2d(2),
            FixedScaleNorm(outputs),
            nn.GELU(),
            convolution(outputs, outputs),
            FixedScaleNorm(outputs),
            nn.GELU(),
        )


class Scaled(nn.Linear):
    """A linear layer without bias whose scores are divided by 9."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) / 9


class Airbench(FeedForward):
    """Whitening by a frozen 2 x 2 convolution with a bias, three blocks, max pooling and a scaled linear classifier."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        whitening = nn.Conv2d(3, 2 * 3 * 2**2, 2)
        whitening.weight.requires_grad_(False)
        self.first = nn.Sequential(whitening, nn.GELU())
        self.groups = nn.ModuleList(Block(before, after) for before, after in zip((24, *widths), widths))
        self.last = nn.Sequential(nn.MaxPool2d(3), nn.Flatten(), Scaled(widths[-1], CLASSES, bias=False))
        self.chain([self.first, *self.groups], self.last)


def make_model(widths: tuple[int, ...], device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return Airbench(widths).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def groups(model: nn.Module, batch: int) -> list[dict[str, object]]:
    """Parameter groups with the paper's rates for a mini-batch of ``batch`` images; the loss is the mean over the batch."""
    rate = RATE / 1024 / (1 + 1 / (1 - MOMENTUM)) * batch
    biases = [module.bias for module in model.modules() if isinstance(module, FixedScaleNorm)]
    others = [value for value in model.parameters() if value.requires_grad and all(value is not bias for bias in biases)]
    decay = DECAY * batch / 1024
    return [
        {"params": biases, "lr": rate * BIAS_SCALE, "weight_decay": decay / (rate * BIAS_SCALE)},
        {"params": others, "lr": rate, "weight_decay": decay / rate},
    ]


class BareLoop:
    """The paper's loop, without evaluations."""

    def __init__(self, widths: tuple[int, ...], images: Tensor, targets: Tensor, batch: int, total_epochs: int = 1000) -> None:
        device = images.device
        self.dtype = torch.half if device.type == "cuda" else torch.float32
        self.model = make_model(widths, device).to(self.dtype)
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
        normalized = ((images / 255 - mean) / std).to(self.dtype)
        self.padded = functional.pad(normalized, (PADDING,) * 4, "reflect").contiguous(memory_format=torch.channels_last)
        self.flipped_first = torch.rand(len(images), device=device) < 0.5
        self.targets, self.batch, self.epoch, self.step = targets, batch, 0, 0
        self.optimizer = torch.optim.SGD(groups(self.model, batch), momentum=MOMENTUM, nesterov=True, fused=True)  # type: ignore[arg-type]
        steps = total_epochs * (len(images) // batch)
        peak = 0.23 * steps

        def triangle(step: int) -> float:
            return 0.2 + 0.8 * step / peak if step < peak else 1.0 - 0.93 * (step - peak) / (steps - peak)

        self.schedule = LambdaLR(self.optimizer, triangle)
        self.slow = [value.detach().clone() for value in self.model.state_dict().values() if value.is_floating_point()]

    def augmented(self) -> Tensor:
        """All images, translated by up to two pixels, and flipped in every other epoch."""
        count, size = len(self.padded), CIFAR[1]
        offsets = torch.randint(2 * PADDING + 1, (2, count), device=self.padded.device)
        images = torch.empty_like(self.padded[..., :size, :size])
        for row in range(2 * PADDING + 1):
            for column in range(2 * PADDING + 1):
                chosen = (offsets[0] == row) & (offsets[1] == column)
                images[chosen] = self.padded[chosen][..., row : row + size, column : column + size]
        flips = self.flipped_first ^ (self.epoch % 2 == 1)
        return torch.where(flips.view(-1, 1, 1, 1), images.flip(-1), images).contiguous(memory_format=torch.channels_last)

    def train(self, epochs: int) -> None:
        """Train for ``epochs`` epochs."""
        self.model.train()
        for _ in range(epochs):
            images = self.augmented()
            order = torch.randperm(len(images), device=images.device)
            for index in order.split(self.batch):
                if len(index) < self.batch:
                    break
                scores = self.model(images[index])
                loss = functional.cross_entropy(scores, self.targets[index], label_smoothing=SMOOTHING)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                self.schedule.step()
                self.step += 1
                if self.step % LOOKAHEAD_EVERY == 0:
                    self.look_ahead()
            self.epoch += 1

    @torch.no_grad()
    def look_ahead(self) -> None:
        """Move the slow weights toward the fast ones and the fast ones back to them."""
        fast = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        torch._foreach_lerp_(self.slow, fast, 1 - 0.95**LOOKAHEAD_EVERY)
        torch._foreach_copy_(fast, self.slow)


class RandomPictures(InMemory):
    """Noise images of the size of CIFAR-10's."""

    title = "random pictures"
    images = 50_000

    def read(self, root: Path) -> RawData:
        """Return the training images and a few test images, which are not used."""
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 256, (self.images, *CIFAR), dtype=np.uint8)
        labels = generator.integers(0, CLASSES, self.images)
        return RawData(Images(pixels, labels), Images(pixels[:100], labels[:100]), tuple("0123456789"))


def load(images: int, batch: int, device: torch.device) -> Data:
    """The data set of altprop's side: crops with the same padding, random flips, no last small mini-batch."""
    augmentation = Augmentation(padding=PADDING, padding_mode="reflect", flip=0.5)
    kind = type("RandomPictures", (RandomPictures,), {"images": images})
    data_set = kind(batch_size=batch, eval_batch_size=1000, mean=MEAN, std=STD, drop_last=True, augmentation=augmentation)
    return data_set.load(LoadContext(Path("."), device, 0, channels_last=True))


def train_ours(widths: tuple[int, ...], data: Data, batch: int, device: torch.device) -> Callable[[int], None]:
    """Return a function that trains the network in altprop's loop for a number of epochs."""
    precision = "bf16" if device.type == "cuda" else "fp32"
    algorithm = set_up(
        Backprop(loss=nn.CrossEntropyLoss(label_smoothing=SMOOTHING)),
        partial(make_model, widths, device),
        CIFAR,
        batch,
        lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=MOMENTUM, nesterov=True, fused=True),
        device,
        steps_per_epoch=len(data.train),
        precision=precision,
        channels_last=True,
    )
    loop = loop_on(algorithm, data, batch)
    return lambda epochs: ours(loop, epochs * len(data.train))


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=5)
    parser.add_argument("--images", type=int, default=50_000, help="in an epoch")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=2, help="per round")
    parser.add_argument("--widths", type=int, nargs=3, default=list(WIDTHS), help="of the three blocks")
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    device, widths = torch.device(args.device), tuple(args.widths)
    data = load(args.images, args.batch, device)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (args.images, *CIFAR), dtype=torch.uint8, generator=generator).to(device)
    targets = torch.randint(CLASSES, (args.images,), generator=generator).to(device)
    sides = {
        "bare": partial(BareLoop(widths, pixels, targets, args.batch).train, args.epochs),
        "altprop": partial(train_ours(widths, data, args.batch, device), args.epochs),
    }
    seconds = alternate(sides, args.rounds, Timer(args.clock, device))
    images = args.epochs * (args.images // args.batch) * args.batch
    rates = {f"images/s, {side}": images / sorted(values)[len(values) // 2] for side, values in seconds.items()}
    limit = at_least(0.8, "target: autocast instead of half-precision weights")
    what = f"airbench's network, batch {args.batch}"
    yield paired(what, "a loop as in the paper", seconds["bare"], seconds["altprop"], limit, values=rates, unit="s", scale=1.0)


if __name__ == "__main__":
    main(parser(), rows)
