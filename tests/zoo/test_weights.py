"""Foreign models under every weights rule: they train, are counted right, resume, and are exported, or refused in one line."""

from __future__ import annotations

import copy

import pytest
import torch

from altprop.algorithms.backprop import Backprop
from altprop.nn.export import sparse_inference
from altprop.nn.export.binary import load_packed, save_packed
from altprop.nn.export.plain import parametrized_by, plain_state, without_parametrizations
from altprop.nn.export.sparse import load_sparse, save_sparse
from altprop.nn.export.sparse_inference import SparseLinear, with_sparse_kernels
from altprop.nn.fused_attention import without_fused_attention
from altprop.nn.weights.binary.base import Binary
from altprop.nn.weights.layers import effective_weight, left_out, positions_per_weight, weight_layers
from altprop.nn.weights.sparse.base import SparseRule
from altprop.nn.weights.sparse.mask import Mask
from altprop.nn.weights.sparse.n_of_m import NOfM, NOfMMask
from altprop.problems import ConfigError
from altprop.testing import INPUT_SHAPE, NUM_CLASSES, STEPS_PER_EPOCH, WEIGHTS_RULES, Case, Training, assert_equal
from tests.zoo.models import ZOO

WEIGHTS = {
    "vit": 8 * 16 + 3 * 8 * 8 + 8 * 8 + 2 * 8 * 16 + (8 + 6 + 4) * 8 + 8 * 8 + 2 * 8 * 16 + 8 * 4,
    "transformer": 8 * 16 + 2 * (4 * 8 * 8 + 2 * 8 * 16) + 8 * 4,
    "conv1d": 8 * 8 * 3 + 8 * 6 * 2 + 12 * 12 * 3 + 24 * 4,
    "lstm": 2 * 32 * (8 + 8) + 24 * (16 + 8) + 8 * 4,
    "depthwise": 9 + 8 + 8 * 9 + 8 * 16 + 64 * 4,
    "shared": 64 * 16 + 16 * 16 + 16 * 4,
    "spectral": 4 * 9 + 64 * 16 + 16 * 4,
    "frozen": 64 * 16 + 16 * 16 + 16 * 4,
}
"""Number of weights of the models' layers, counted by hand."""
FLOPS = {
    "vit": 2 * (4 * (WEIGHTS["vit"] - 8 * 4) + 8 * 4),
    "transformer": 2 * (4 * (WEIGHTS["transformer"] - 8 * 4) + 8 * 4),
    "conv1d": 2 * (4 * 192 + 4 * 96 + 8 * 432 + 96),
    "lstm": 2 * (8 * (WEIGHTS["lstm"] - 32) + 32),
    "depthwise": 2 * (16 * (9 + 8) + 4 * (72 + 128) + 256),
    "shared": 2 * (64 * 16 + 2 * 16 * 16 + 16 * 4),
    "spectral": 2 * (16 * 36 + 64 * 16 + 16 * 4),
    "frozen": 2 * WEIGHTS["frozen"],
}
"""Operations with weights in a forward pass of one image, counted by hand."""
ONE_INPUT = {
    "vit": {"stages.0.0.project"},
    "transformer": {"stages.0.0.project"},
    "depthwise": {"stages.0.0", "stages.0.1", "stages.1.0"},
    "spectral": {"stages.0.0"},
}
"""Layers of which each output has a single input."""
REFUSED = {
    ("tied", "spectral"): r"^algorithm\.weights: the weight of stages\.0\.0 is computed by SpectralNorm, ",
    ("structured_rigl", "conv1d"): r"^algorithm\.weights\.dense: structured_rigl does not support transposed convolutions",
}


def case(name: str) -> Case:
    return Case(lambda weights: Backprop(weights=weights), ZOO[name])


def build(name: str) -> torch.nn.Module:
    return ZOO[name](input_shape=INPUT_SHAPE, num_classes=NUM_CLASSES)


def masks_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The masks of a network's weights under a sparse rule, by the names of its weights."""
    names = {(id(layer.module), layer.tensor): layer.name for layer in weight_layers(model)}
    masks = {}
    for weight, part in parametrized_by(model, Mask):
        masks[names[id(weight.module), weight.tensor]] = part.mask
    for weight, part in parametrized_by(model, NOfMMask):
        masks[names[id(weight.module), weight.tensor]] = part.of(weight.original)
    return masks


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", ZOO)
def test_all_weights_are_found_and_counted(name: str) -> None:
    model = build(name)
    layers = weight_layers(model)
    assert sum(effective_weight(layer.module, layer.tensor).numel() for layer in layers) == WEIGHTS[name]
    uses = positions_per_weight(model, INPUT_SHAPE)
    assert sum(2 * uses[layer.name] * layer.weight.numel() for layer in layers) == FLOPS[name]
    positions = {"vit": {"stages.0.0.position": 32}, "transformer": {"stages.0.0.position": 32}}
    frozen = {"frozen": {"stages.0.1": 64 * 16}}
    assert left_out(model) == {**positions, **frozen}.get(name, {})


@pytest.mark.parametrize("rule", WEIGHTS_RULES)
@pytest.mark.parametrize("name", ZOO)
def test_trains_resumes_and_is_exported(name: str, rule: str, tmp_path) -> None:
    if (rule, name) in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[rule, name]):
            Training(case(name), WEIGHTS_RULES[rule]())
        return
    training = Training(case(name), WEIGHTS_RULES[rule]())
    training.run(STEPS_PER_EPOCH + 2)
    resumed = Training(case(name), WEIGHTS_RULES[rule]()).restore(training.state())
    assert_equal(training.run(STEPS_PER_EPOCH - 2).state(), resumed.run(STEPS_PER_EPOCH - 2).state())
    algorithm, model = training.algorithm, training.algorithm.model
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    metrics = algorithm.weights_epoch_end(1)
    named = set(left_out(model)) if rule != "dense" else set()
    if rule == "n_of_m":  # outputs with one input have nothing to choose from
        named |= ONE_INPUT.get(name, set())
    assert {key.removeprefix("weights/left_out/") for key in metrics if "left_out" in key} == named

    model.requires_grad_(False)  # torch multiplies some inputs with weights that need gradients in another way
    with algorithm.inference(), without_fused_attention():
        inputs, _ = next(training.test_split.batches())
        scores = algorithm.model(inputs)
    weights = {layer.name: effective_weight(layer.module, layer.tensor) for layer in weight_layers(model)}
    if isinstance(algorithm.weights, (SparseRule, NOfM)):
        masks = masks_of(model)
        zeros = {name: (mask == 0).sum() * (weights[name].numel() // mask.numel()) for name, mask in masks.items()}
        total = WEIGHTS[name] + (32 if name in ("vit", "transformer") else 0)
        assert float(metrics["weights/density"]) == pytest.approx(1 - sum(map(int, zeros.values())) / total)
        uses = positions_per_weight(build(name), INPUT_SHAPE)
        saved = sum(2 * uses[layer] * int(count) for layer, count in zeros.items())
        assert float(metrics["weights/forward_flops"]) == pytest.approx(FLOPS[name] - saved)
        for layer, mask in masks.items():
            assert float(metrics[f"weights/density/{layer}"]) == pytest.approx(float(mask.float().mean()))
            assert not weights[layer][mask == 0].any()
    if isinstance(algorithm.weights, Binary):
        for layer, part in zip(algorithm.weights.names, algorithm.weights.binarizations, strict=True):
            assert not part.binary or len(torch.unique(weights[layer].abs())) <= 2 * max(weights[layer].shape[:2])
        assert float(metrics["weights/fully_binary"]) == float(all(part.binary for part in algorithm.weights.binarizations))

    plain = without_parametrizations(build(name)).eval().requires_grad_(False)
    exported = [plain_state(model)]
    if isinstance(algorithm.weights, SparseRule):
        save_sparse(model, tmp_path / "sparse")
        exported.append(load_sparse(tmp_path / "sparse"))
    if isinstance(algorithm.weights, Binary):
        save_packed(model, tmp_path / "packed")
        exported.append(load_packed(tmp_path / "packed"))
    for state in exported:
        plain.load_state_dict(state)
        with torch.inference_mode(), without_fused_attention():
            assert torch.equal(plain(inputs), scores)
    copied = copy.deepcopy(model).eval()
    with torch.no_grad():
        torch.testing.assert_close(copied(inputs), scores)


@pytest.mark.parametrize("name", ["vit", "shared", "transformer", "lstm"])
def test_sparse_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_inference, "_seconds", lambda module, *_: 0.0 if isinstance(module, SparseLinear) else 1.0)
    training = Training(case(name), WEIGHTS_RULES["static_sparse"]())
    inputs, _ = next(training.test_split.batches())
    with torch.no_grad():
        expected = training.algorithm.model.eval()(inputs)
        faster = with_sparse_kernels(training.algorithm.model, inputs)
        torch.testing.assert_close(faster(inputs), expected)
    sparse = {key for key, module in faster.named_modules(remove_duplicate=False) if isinstance(module, SparseLinear)}
    heads = {"classifier", "classifier.1"} & sparse
    others = {"vit": 4, "shared": 3}.get(name, 0)  # torch's transformer layers read the weights of theirs
    assert len(heads) == 1
    assert len(sparse - heads) == others
