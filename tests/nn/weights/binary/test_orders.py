"""Orders in which layers become binary, and the number of binary layers per epoch."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from altprop.nn.weights.binary.iterative import num_binary_layers
from altprop.nn.weights.binary.orders import PUBLISHED, order_problems, read_order, resolve_order, rotation
from altprop.problems import ConfigError

KEY = "algorithm.weights.order"
LENGTHS = {"vgg5": 5, "vgg9": 9, "resnet20": 20, "resnet21": 21}


def names(length):
    return [f"layer{place}" for place in range(1, length + 1)]


def resolve(order, length=4, seed=0):
    return resolve_order(order, names(length), torch.Generator().manual_seed(seed), KEY)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_orders_are_permutations(name):
    """Section 10, check 5."""
    net, kind = name.split("_")
    order = resolve(name, LENGTHS[net])
    assert sorted(order) == list(range(1, LENGTHS[net] + 1))
    if kind == "descend":
        assert order == PUBLISHED[f"{net}_ascend"][::-1]


def test_there_are_as_many_published_orders_as_in_the_paper():
    assert len(PUBLISHED) == 11  # ascend and descend of four networks, random of three


def test_the_last_layer_of_residual_networks_is_the_most_sensitive_one():
    """Section 2.6: no batch norm follows it."""
    assert PUBLISHED["resnet20_ascend"][-1] == 20
    assert PUBLISHED["resnet21_ascend"][-1] == 21


@given(length=st.integers(1, 30), data=st.data())
def test_words_and_numbers(length, data):
    first = data.draw(st.integers(1, length))
    forward = resolve("forward", length)
    assert forward == tuple(range(1, length + 1))
    assert resolve("reverse", length) == forward[::-1]
    assert resolve(first, length) == rotation(first, length) == forward[first - 1 :] + forward[: first - 1]
    assert sorted(resolve("random", length, seed=first)) == list(forward)


@given(order=st.permutations([1, 2, 3, 4, 5, 6]))
def test_explicit_orders_by_position_or_name(order):
    assert resolve(order, 6) == tuple(order)
    assert resolve([names(6)[place - 1] for place in order], 6) == tuple(order)


def test_random_order_is_seeded():
    assert resolve("random", 20, seed=1) == resolve("random", 20, seed=1) != resolve("random", 20, seed=2)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([1, 2, 3], "3 entries"),
        ([1, 2, 2, 4], "2: more than once"),
        ([1, "layer1", 3, 4], "more than once"),
        ([1, 2, 3, 7], "7: no such layer"),
        (["layer1", "layer2", "layer3", "classifier"], "classifier: no such layer"),
        ([0, 1, 2, 3], "0: no such layer"),
        (5, "5 is not the position of a layer"),
        ("vgg5_ascend", "vgg5_ascend has 5 layers"),
    ],
)
def test_refused_with_the_list_of_layers(order, message):
    with pytest.raises(ConfigError) as refusal:
        resolve(order)
    (problem,) = refusal.value.problems
    assert problem.key == KEY
    assert message in problem.description
    assert "1 layer1, 2 layer2, 3 layer3, 4 layer4" in problem.allowed
    assert "\n" not in str(problem)


def test_order_from_a_file(tmp_path):
    file = tmp_path / "order.json"
    file.write_text(json.dumps({"order": [3, 1, 2], "layers": names(3)}))
    assert read_order(str(file), names(3), KEY) == (3, 1, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no readable file"),
        ("[1, 2", "no readable file"),
        ("[1, 2, 3]", "does not hold an order"),
        ('{"order": [1, 2, 3]}', "does not hold an order"),
        ('{"order": [1, 2, 3], "layers": ["a", "b", "c"]}', "is about the layers a, b, c"),
        ('{"order": [1, 2, 2], "layers": ["layer1", "layer2", "layer3"]}', "2: more than once"),
    ],
)
def test_unsuitable_files_are_refused(tmp_path, content, message):
    file = tmp_path / "order.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_order(str(file), names(3), KEY)


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({"order": "forward", "order_file": None}, []),
        ({"order": [3, 1, 2], "order_file": None}, []),
        ({"order": "from_sensitivity", "order_file": "order.json"}, []),
        ({"order": "forwards", "order_file": None}, ["order"]),
        ({"order": "from_sensitivity", "order_file": None}, ["order_file"]),
        ({"order": "forward", "order_file": "order.json"}, ["order_file"]),
    ],
)
def test_problems_that_show_without_the_model(config, keys):
    assert [problem.key for problem in order_problems(config, "weights")] == [f"weights.{key}" for key in keys]


@given(epoch=st.integers(0, 2000), each=st.integers(1, 200), layers=st.integers(1, 30))
def test_number_of_binary_layers(epoch, each, layers):
    """Section 10, check 5: min(L, floor(e / E_l) + 1), never fewer in a later epoch."""
    count = num_binary_layers(epoch, each, layers)
    assert count == min(layers, epoch // each + 1)
    assert count <= num_binary_layers(epoch + 1, each, layers) <= count + 1


@pytest.mark.parametrize(
    ("layers", "each", "total", "all_binary_from"),
    [(3, 150, 450, 300), (5, 150, 750, 600), (9, 150, 1350, 1200), (20, 50, 1200, 950), (21, 2, 67, 40)],
)
def test_schedules_of_the_experiments(layers, each, total, all_binary_from):
    """Section 5.3: when, counted from 0, the last layer becomes binary."""
    counts = [num_binary_layers(epoch, each, layers) for epoch in range(total)]
    assert counts.index(layers) == all_binary_from
    assert sorted(set(counts)) == list(range(1, layers + 1))
