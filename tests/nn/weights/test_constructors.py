"""Constructors of configured classes: keyword-only, with options that are passed on and known to validation."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest

from altprop import weights
from altprop.config.checks.targets import signature_of
from altprop.names import FORMER_PATHS
from altprop.nn.weights.binary.base import Binary, BinaryOptions
from altprop.nn.weights.binary.iterative import IterativeBinary
from altprop.nn.weights.sparse.base import SparseOptions, SparseRule
from altprop.nn.weights.sparse.dynamic import DynamicSparse
from altprop.nn.weights.sparse.pruning import IterativePruning
from altprop.nn.weights.sparse.static import FixedBudget, FixedBudgetOptions, StaticSparse

CONFIGURED = [name for names in FORMER_PATHS["altprop.weights"].values() for name in names.split()]


@pytest.mark.parametrize("name", CONFIGURED)
def test_arguments_are_keyword_only(name):
    parameters = inspect.signature(getattr(weights, name)).parameters.values()
    assert {parameter.kind for parameter in parameters} <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


@pytest.mark.parametrize(
    ("options", "rule"), [(BinaryOptions, Binary), (SparseOptions, SparseRule), (FixedBudgetOptions, FixedBudget)]
)
def test_typed_options_are_the_arguments_of_the_base_class(options, rule):
    signature = signature_of(rule)
    assert {name: parameter.annotation for name, parameter in signature.parameters.items()} == get_type_hints(
        options, include_extras=True
    )
    assert {
        name for name, parameter in signature.parameters.items() if parameter.default is parameter.empty
    } == options.__required_keys__


@pytest.mark.parametrize(
    ("rule", "inherited", "refused"),
    [
        (IterativeBinary, {"epoch_end", "clip", "weights_from"}, {"sparsity"}),
        (StaticSparse, {"sparsity", "mask_from", "penalty"}, {"period"}),
        (DynamicSparse, {"sparsity", "mask_from", "granularity"}, {"iterations"}),
        (IterativePruning, {"granularity", "weights_from"}, {"mask_from", "distribution"}),
    ],
)
def test_validation_knows_inherited_arguments_and_refuses_others(rule, inherited, refused):
    signature = signature_of(rule)
    assert not signature.open_ended
    assert inherited <= signature.parameters.keys()
    assert not refused & signature.parameters.keys()
    required = {name: None for name, parameter in signature.parameters.items() if parameter.default is parameter.empty}
    for name in refused:
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            rule(**required, **{name: None})
