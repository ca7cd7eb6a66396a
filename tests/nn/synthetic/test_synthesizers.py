"""Synthesizers: published parameter counts and initial predictions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from altprop.nn.synthetic.gradients import predict, synthesizer_context
from altprop.nn.synthetic.synthesizers import BasicSynthesizer, ConvSynthesizer


@torch.no_grad()
@pytest.mark.parametrize("n_hidden", [0, 1, 2])
@pytest.mark.parametrize("context", [None, 5])
def test_basic_synthesizer_starts_with_its_last_bias(n_hidden: int, context: int | None) -> None:
    synthesizer = BasicSynthesizer(4, n_hidden=n_hidden, hidden_dim=7, trigger_dim=3, context_dim=context)
    with synthesizer_context(None if context is None else torch.randn(6, context)):
        predicted = predict(synthesizer, torch.randn(6, 3))
    assert predicted.shape == (6, 4)
    assert torch.equal(predicted, predicted[:1].expand(6, 4))
    assert predicted.any()
    assert [tuple(layer.weight.shape) for layer in synthesizer.layers] == [(7, 7)] * (n_hidden - 1) + [(4, 7)] * (n_hidden > 0)


def test_basic_synthesizer_raises_without_the_context_it_was_built_for() -> None:
    with pytest.raises(ValueError, match="none was passed"):
        BasicSynthesizer(4, context_dim=2)(torch.randn(3, 4))


@torch.no_grad()
def test_conv_synthesizer_has_the_published_parameters() -> None:
    synthesizer = ConvSynthesizer(128, 10)
    assert sum(parameter.numel() for parameter in synthesizer.parameters()) == 1_231_104
    bias = synthesizer.convolutions[-1].bias
    assert isinstance(bias, nn.Parameter)
    assert 0 < float(bias.abs().max()) <= 1 / 3200**0.5
    maps = predict(synthesizer, torch.randn(2, 128, 3, 3))
    assert torch.equal(maps, bias[None, :, None, None].expand(2, 128, 3, 3))
    assert not predict(ConvSynthesizer(4, 3, zero_bias=True), torch.randn(2, 4, 3, 3)).any()


def test_conv_synthesizer_adds_the_context_at_every_position() -> None:
    torch.manual_seed(0)
    synthesizer = ConvSynthesizer(4, 3).double()
    nn.init.normal_(synthesizer.convolutions[-1].weight)  # type: ignore[arg-type]
    trigger = torch.randn(5, 4, 3, 3, dtype=torch.float64)
    context = nn.functional.one_hot(torch.arange(5) % 3, 3).double()
    first = synthesizer.convolutions[0](trigger) + synthesizer.from_context(context)[:, :, None, None]
    assert torch.allclose(synthesizer(trigger, context), synthesizer.convolutions[1:](first))
    assert not torch.allclose(synthesizer(trigger, context), synthesizer(trigger))
