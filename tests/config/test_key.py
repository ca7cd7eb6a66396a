import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from altprop.config.key import VOLATILE, is_volatile, run_key

CONFIG: dict[str, Any] = {
    "dataset": {"_target_": "a.B", "batch_size": 100, "folder": "/here/data/images", "workers": 4},
    "optimizer": {"lr": 1.0, "betas": [0.9, 0.999], "nesterov": True},
    "trainer": {"duration": "10ep", "device": "cpu", "keep": 2},
    "paths": {"data": "/here/data", "outputs": "/here/outputs"},
    "seed": 0,
    "name": "scratch",
}

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcdef", min_size=1, max_size=4), inner, max_size=3),
    max_leaves=8,
)


def changed(key: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    node = config
    *parents, name = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[name] = value
    return config


def test_the_key_is_twelve_hexadecimal_digits_and_stable() -> None:
    assert run_key(CONFIG) == "c33915dc0858"  # a different key would orphan every run on disk
    assert run_key(copy.deepcopy(CONFIG)) == run_key(CONFIG)


@pytest.mark.parametrize("key", VOLATILE)
def test_volatile_keys_do_not_count(key: str) -> None:
    assert is_volatile(key)
    if key != "paths":
        assert run_key(changed(key, "something else")) == run_key(CONFIG)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("optimizer.lr", 0.5),
        ("optimizer.nesterov", 1),
        ("optimizer.betas", [0.999, 0.9]),
        ("dataset.batch_size", 128),
        ("trainer.duration", "11ep"),
        ("trainer.precision", "bf16"),
        ("dataset._target_", "a.C"),
        ("optimizer.momentum", None),
    ],
)
def test_everything_else_counts(key: str, value: Any) -> None:
    assert not is_volatile(key)
    assert run_key(changed(key, value)) != run_key(CONFIG)


@pytest.mark.parametrize("one", [1, 1.0, float("1e0")])
def test_numbers_count_by_value(one: float) -> None:
    assert run_key(changed("optimizer.lr", one)) == run_key(CONFIG)


def test_the_same_run_on_another_machine_has_the_same_key() -> None:
    elsewhere = changed("paths", {"data": "/mnt/d/", "outputs": "/scratch"})
    elsewhere["dataset"]["folder"] = "/mnt/d/images"
    assert run_key(elsewhere) == run_key(CONFIG)
    elsewhere["dataset"]["folder"] = "/mnt/d/others"
    assert run_key(elsewhere) != run_key(CONFIG)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=4), plain, max_size=4))
def test_the_order_of_keys_does_not_count(config: dict[str, Any]) -> None:
    assert run_key(dict(reversed(list(config.items())))) == run_key(config)


@pytest.mark.parametrize(("size", "same"), [(0, True), (0.1, False), (100, False)])
def test_how_validation_images_are_chosen_counts_only_if_there_are_any(size: float, same: bool) -> None:
    tail, stratified = (
        {**CONFIG, "dataset": {**CONFIG["dataset"], "validation": {"size": size, "how": how, "seed": 0, "file": None}}}
        for how in ("tail", "stratified")
    )
    assert (run_key(tail) == run_key(stratified)) is same
