from typing import Any

import pytest

from altprop.training.settings import EarlyStopping, TrainerSettings


def test_defaults_are_valid_and_frozen() -> None:
    settings = TrainerSettings()
    assert settings.precision == "fp32"
    with pytest.raises(AttributeError):
        settings.duration = "1ep"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("duration", "10"),
        ("duration", "10%"),
        ("evaluate_every", "0ep"),
        ("checkpoint_every", "often"),
        ("probe_every", "1"),
        ("device", "gpu"),
        ("device", "cuda:x"),
        ("log_every", 0),
        ("accumulate", 0),
        ("keep", 0),
        ("threads", 0),
        ("limit_batches", 0),
        ("profile_steps", 0),
        ("clip_norm", 0.0),
    ],
)
def test_refusal_names_the_key(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.{field}"):
        TrainerSettings(**{field: value})


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3", "mps"])
def test_devices(device: str) -> None:
    assert TrainerSettings(device=device).device == device


@pytest.mark.parametrize("arguments", [{"metric": "accuracy"}, {"metric": "best/loss"}, {"patience": 0}, {"min_delta": -0.1}])
def test_early_stopping_refuses(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.early_stopping\.{next(iter(arguments))}"):
        EarlyStopping(**arguments)
