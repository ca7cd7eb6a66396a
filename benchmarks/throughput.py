"""Images per second of backprop through altprop's algorithm, compared with the same steps written in plain PyTorch.

    OMP_NUM_THREADS=1 python benchmarks/throughput.py [--models convnet4 wide_resnet resnet18] [--rounds 5] [--steps 20]
        [--device cuda] [--precisions fp32 tf32 bf16] [--json result.json]

Both sides train the same network with the same fused SGD on the same mini-batch, with autocast in bf16. On CUDA the mini-batches
are those of training (128 images of 32 x 32; 64 of 224 x 224 for ResNet-18); on a CPU ``--batch`` makes them small.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_least, paired, repeated
from subjects import CIFAR, Shape, noise, recipe
from torch import Tensor, nn

from altprop.algorithms.numerics import configure_numerics

SUITE = "--models convnet4 --batch 16 --steps 1 --rounds 3"
QUICK = "--models convnet4 --batch 2 --steps 1 --rounds 2"

MODELS: dict[str, tuple[Shape, int]] = {"convnet4": (CIFAR, 128), "wide_resnet": (CIFAR, 128), "resnet18": ((3, 224, 224), 64)}
"""Choice of the group ``model`` -> image shape and mini-batch on CUDA."""
SGD = "optimizer=sgd optimizer.lr=0.001 +optimizer.fused=true"


def plain_step(model: nn.Module, batch: tuple[Tensor, Tensor], precision: str) -> Callable[[], None]:
    """Return a hand-written training step of ``model`` on ``batch``."""
    inputs, targets = batch
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, fused=True)
    autocast = partial(torch.autocast, inputs.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()

    return step


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batch", type=int, help="images in a mini-batch; default: as in training")
    parser.add_argument("--steps", type=int, default=20, help="steps per round")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "tf32", "bf16"), default=["fp32"])
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    device = torch.device(args.device)
    for name in args.models:
        shape, size = MODELS[name]
        batch = noise(args.batch or size, shape, device)
        for precision in args.precisions:
            configure_numerics(precision, deterministic=False)
            make = recipe(f"model={name} {SGD}".split(), shape, len(batch[1]), device=device, precision=precision)
            sides = {
                "altprop": partial(repeated, partial(make().train_step, *batch), args.steps),
                "plain": partial(repeated, plain_step(make().model, batch, precision), args.steps),
            }
            seconds = alternate(sides, args.rounds, Timer(args.clock, device), warm_up=2)
            images = args.steps * len(batch[1])
            rates = {f"images/s, {side}": images / sorted(values)[len(values) // 2] for side, values in seconds.items()}
            what = f"backprop step, {name}, batch {len(batch[1])}, {precision}"
            limit = at_least(0.95, "target: the same work")
            yield paired(what, "plain PyTorch", seconds["plain"], seconds["altprop"], limit, values=rates, scale=1e3 / args.steps)
    configure_numerics("fp32", deterministic=False)


if __name__ == "__main__":
    main(parser(), rows)
