"""Cost of binary weights compared with float weights: a training step of the 300-100-10 network and of Vgg-5 (Lan 2021).

    OMP_NUM_THREADS=1 python benchmarks/iterative_binary_step.py [--rounds 400] [--nets 300 vgg5] [--device cuda]
        [--json result.json]

Three sides train the same network with the same fused Adam on the same random mini-batch of 100, one step each in turn: float
weights (`Dense`), altprop's `Binary`, and the straightforward implementation, in which every layer copies its weights twice in
every step: once to take the signs in place and once to restore the float weights. The ratio is formed in every round; its median
is the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from command_line import main, standard_parser
from measuring import Row, Timer, alternate, at_least, at_most, paired
from subjects import CIFAR, MNIST, noise, set_up
from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.models.convnet import ConvNet
from altprop.models.mlp import MLP
from altprop.nn.weights.base import Dense, WeightsRule
from altprop.nn.weights.binary.base import Binary

SUITE = "--rounds 100 --clock process"
QUICK = "--rounds 3 --nets 300"

BATCH = 100
TARGETS = {"300": 1.15, "vgg5": 1.05}
SHAPES = {"300": MNIST, "vgg5": CIFAR}
FORM: dict[str, Any] = {"units": nn.ReLU, "num_classes": 10, "batch_norm_logits": True, "bias_before_norm": True}
NETS: dict[str, Callable[[], nn.Module]] = {
    "300": partial(MLP, hidden=(300, 100), input_shape=MNIST, **FORM),
    "vgg5": partial(ConvNet, channels=(64, 64, "pool"), hidden=(256, 256), input_shape=CIFAR, **FORM),
}
ADAM = partial(torch.optim.Adam, lr=0.1, fused=True)


class CopyingRule(WeightsRule):
    """Weights are saved and overwritten by their signs before every forward pass, and restored after the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[nn.Linear | nn.Conv2d] = []
        self.saved: list[Tensor] = []

    def attach(self, model: nn.Module, context: object) -> None:
        self.layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]

    def step_start(self, step: int) -> None:
        self.saved = []
        for layer in self.layers:
            self.saved.append(layer.weight.data.clone())
            layer.weight.data = layer.weight.data.clone().sign_()

    def adjust_gradients(self, parameters: object) -> None:
        for layer, saved in zip(self.layers, self.saved):
            layer.weight.data = saved


def parser() -> argparse.ArgumentParser:
    parser = standard_parser(__doc__, rounds=400, clock="wall")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    return parser


def rows(args: argparse.Namespace) -> Iterator[Row]:
    device = torch.device(args.device)
    for net in args.nets:
        rounds = args.rounds if net == "300" else max(3, args.rounds // 10)
        batch = noise(BATCH, SHAPES[net], device)
        rules: dict[str, WeightsRule] = {"float": Dense(), "binary": Binary(), "copying": CopyingRule()}
        steps = {
            name: partial(set_up(Backprop(weights=rule), NETS[net], SHAPES[net], BATCH, ADAM, device).train_step, *batch)
            for name, rule in rules.items()
        }
        seconds = alternate(steps, rounds, Timer(args.clock, device), warm_up=3)
        limit = at_most(TARGETS[net], "target: one pass over the weights for the signs")
        yield paired(f"binary step, {net}", "float step", seconds["binary"], seconds["float"], limit)
        limit = at_least(0.95, "not slower, 5 % for noise")
        yield paired(f"binary step, {net}", "two copies of the weights", seconds["copying"], seconds["binary"], limit)


if __name__ == "__main__":
    main(parser(), rows)
