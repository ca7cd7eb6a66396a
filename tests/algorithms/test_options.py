"""Constructors that pass options on: a typed dictionary names arguments of the base with their types, and others are refused."""

from __future__ import annotations

import typing
from typing import get_args, get_type_hints

import pytest

from altprop.algorithms.base import Algorithm
from altprop.algorithms.blocks import BlockAlgorithm
from altprop.algorithms.delayed.gradients import DelayedGradients
from altprop.algorithms.greedy.asynchronous import AsynchronousGreedy
from altprop.algorithms.greedy.distributed import DistributedGreedy
from altprop.algorithms.greedy.local_losses import LocalLosses
from altprop.algorithms.synthetic.gradients import SyntheticGradients
from altprop.config.checks.targets import signature_of

CLASSES = (BlockAlgorithm, LocalLosses, AsynchronousGreedy, DistributedGreedy, DelayedGradients, SyntheticGradients)


@pytest.mark.parametrize("cls", CLASSES)
def test_options_are_arguments_of_the_base_and_known_to_validation(cls: type[Algorithm]) -> None:
    (options,) = get_args(get_type_hints(cls.__init__)["options"])
    base, own = signature_of(cls.__mro__[1]), signature_of(cls)
    assert base is not None
    assert own is not None
    assert not own.open_ended
    for name in typing.get_type_hints(options):
        assert own.parameters[name].annotation == base.parameters[name].annotation, name


def test_an_option_that_a_subclass_does_not_take_is_refused() -> None:
    signature = signature_of(AsynchronousGreedy)
    assert signature is not None
    assert "master_weights" not in signature.parameters
    with pytest.raises(TypeError, match="master_weights"):
        AsynchronousGreedy(master_weights=True)  # type: ignore[call-arg]
