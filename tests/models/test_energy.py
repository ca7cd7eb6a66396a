"""Energy-based networks: published parameter counts, shapes, and the options they reject."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from altprop.config.checks.validation import problems_of
from altprop.config.compose import compose
from altprop.models.energy import EnergyConvNet, EnergyMLP, EnergyModel
from altprop.problems import ConfigError

MNIST: dict[str, Any] = {"input_shape": (1, 28, 28), "num_classes": 10}
CIFAR: dict[str, Any] = {
    "channels": (128, 256, 512, 512),
    "kernels": (3, 3, 3, 3),
    "strides": (1, 1, 1, 1),
    "paddings": (1, 1, 1, 0),
    "pools": ("max",) * 4,
    "input_shape": (3, 32, 32),
    "num_classes": 10,
}


def count(model: EnergyModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_published_parameter_counts() -> None:
    """Check 1 of section 10."""
    assert count(EnergyMLP(**MNIST)) == 407_050
    assert count(EnergyMLP(vector_field=True, **MNIST)) == 412_170
    assert count(EnergyConvNet(**MNIST)) == 62_346
    with torch.device("meta"):
        assert count(EnergyConvNet(**CIFAR)) == 3_843_850
        assert count(EnergyConvNet(vector_field=True, softmax_readout=True, **CIFAR)) == 7_677_706
        assert count(EnergyConvNet(vector_field=True, **CIFAR)) == 7_682_826


def test_published_shapes() -> None:
    with torch.device("meta"):
        model = EnergyConvNet(**CIFAR)
        small = EnergyConvNet(
            channels=(128, 256, 512),
            kernels=(3,) * 3,
            strides=(1,) * 3,
            paddings=(0,) * 3,
            pools=("max",) * 3,
            input_shape=(3, 32, 32),
            num_classes=10,
        )
    assert model.state_shapes == ((128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 1, 1), (10,))
    assert small.state_shapes == ((128, 15, 15), (256, 6, 6), (512, 2, 2), (10,))
    assert count(small) == 1_499_402


def test_a_readout_is_not_a_state_and_has_no_feedback() -> None:
    plain = EnergyConvNet(vector_field=True, **MNIST)
    readout = EnergyConvNet(vector_field=True, softmax_readout=True, **MNIST)
    assert (plain.num_states, readout.num_states) == (3, 2)
    assert (len(plain.feedback), len(readout.feedback)) == (2, 1)
    states = [torch.rand(2, *shape) for shape in readout.state_shapes]
    assert torch.allclose(readout.scores(states), readout.layers[-1](states[-1].flatten(1)), atol=1e-5)


@pytest.mark.parametrize("vector_field", [False, True])
def test_the_initial_scale_multiplies_weights_and_biases(vector_field: bool) -> None:
    torch.manual_seed(0)
    model = EnergyMLP(init_scale=0.5, vector_field=vector_field, **MNIST)
    for layer in (*model.layers, *model.feedback):
        bound = 0.5 / layer.in_features**0.5
        for parameter in layer.parameters():
            assert 0.8 * bound < float(parameter.detach().abs().max()) <= bound


def test_feedback_weights_are_drawn_independently() -> None:
    torch.manual_seed(0)
    model = EnergyConvNet(vector_field=True, **MNIST)
    assert model.feedback_weight(0).shape == model.layers[1].weight.shape
    assert not torch.equal(model.feedback_weight(0), model.layers[1].weight)
    mlp = EnergyMLP(vector_field=True, **MNIST)
    assert mlp.feedback[0].weight.shape == (512, 10)
    assert mlp.feedback_weight(0).shape == (10, 512)


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        (EnergyConvNet, {"kernels": (5,)}, r"model\.kernels: 1 entries"),
        (EnergyConvNet, {"pools": ("max", "mean")}, r"model\.pools: mean; each one of max, average, none"),
        (EnergyConvNet, {"paddings": (0, -1)}, r"model\.paddings"),
        (EnergyConvNet, {"kernels": (5, 20)}, "nothing is left of images"),
        (EnergyConvNet, {"channels": (), "kernels": (), "strides": (), "paddings": (), "pools": ()}, "at least one convolution"),
        (EnergyMLP, {"activation": "hard_sigmoit"}, "model.activation=hard_sigmoid"),
        (EnergyMLP, {"hidden": (0,)}, r"model\.hidden"),
        (EnergyMLP, {"hidden": (), "softmax_readout": True}, "needs a state to read"),
        (EnergyMLP, {"keep_probabilities": (1.0, 0.5)}, r"model\.keep_probabilities: 2 entries"),
        (EnergyMLP, {"keep_probabilities": (1.0, 0.0, 1.0)}, "above 0 and up to 1"),
    ],
)
def test_impossible_options_raise(kind: type[EnergyModel], options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        kind(**options, **MNIST)  # type: ignore[call-arg]


CONTINUAL = "algorithm=continual_equilibrium_propagation"


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["algorithm.learning_rates=[0.1]"], "algorithm.learning_rates"),
        (["algorithm.weight_decays=[0.1,0.1,0.1]"], "algorithm.weight_decays"),
        (["model.softmax_readout=true"], "algorithm.loss"),
        (["algorithm.learning_rates=[-1,0.1]"], "algorithm.learning_rates"),
        (["algorithm.weight_decays=[0.1,-1]"], "algorithm.weight_decays"),
        (["model.init_scale=-2"], "model.init_scale"),
        (["model=eqprop_cnn", "model.init_scale=0"], "model.init_scale"),
        ([CONTINUAL, "algorithm.learning_rates=[0,0.1]", "algorithm.weight_decays=[0.1,0.1]"], "algorithm.learning_rates"),
        ([CONTINUAL, "optimizer=sgd", "optimizer.lr=0", "optimizer.weight_decay=0.1"], "optimizer.lr"),
        ([CONTINUAL, "algorithm.weight_decays=[20,0]"], "algorithm.weight_decays"),
        ([CONTINUAL, "optimizer=sgd", "optimizer.weight_decay=20"], "optimizer.weight_decay"),
        (["algorithm.beta=0"], "algorithm.beta"),
        (["algorithm.free_steps=0"], "algorithm.free_steps"),
        (["algorithm.nudge_steps=0"], "algorithm.nudge_steps"),
        (["algorithm.check_every=0"], "algorithm.check_every"),
        (["algorithm.tolerance=0"], "algorithm.tolerance"),
        (["algorithm.nudging=three_phase"], "algorithm.nudging"),
        (["algorithm.same_update=true"], "algorithm.same_update"),
        (["algorithm.fixed_state=nudged"], "algorithm.fixed_state"),
        (["trainer.precision=fp16"], "trainer.precision"),
        (["trainer.accumulate=2"], "trainer.accumulate"),
        (["model=mlp"], "model"),
        (["algorithm=backprop"], "model"),
        (["algorithm=backprop_through_time", "algorithm.differentiated_steps=30"], "algorithm.differentiated_steps"),
        ([CONTINUAL, "algorithm.debug=true"], "algorithm.debug"),
        (["model.pools=[max]", "model=eqprop_cnn"], "model.pools"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_incompatible_options_are_reported_in_one_line(overrides: list[str], key: str) -> None:
    base = ["model=eqprop_mlp", "algorithm=equilibrium_propagation"]
    groups = {override.partition("=")[0] for override in overrides}
    problems = problems_of(compose([choice for choice in base if choice.partition("=")[0] not in groups] + overrides))
    assert [problem.key for problem in problems] == [key]
    assert "\n" not in str(problems[0])
