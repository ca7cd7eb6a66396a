import pytest
from hypothesis import given
from hypothesis import strategies as st

from altprop.training.duration import Duration


@pytest.mark.parametrize(
    ("text", "steps"),
    [("10ep", 1000), ("0.5ep", 50), ("500st", 500), ("10%", 200), (" 3 ep ", 300), ("2.5%", 50), ("0.001ep", 1), ("100%", 2000)],
)
def test_steps(text: str, steps: int) -> None:
    assert Duration.parse(text).steps(steps_per_epoch=100, total_steps=2000) == steps


@pytest.mark.parametrize("text", ["", "10", "ep", "-1ep", "0ep", "1.5st", "101%", "10 epochs", "1e3st", "0%", "ten ep", "10EP"])
def test_refused_with_the_allowed_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"'10ep' \(epochs\), '500st' \(steps\) or '10%'"):
        Duration.parse(text)


def test_a_share_needs_the_length_of_the_run() -> None:
    with pytest.raises(ValueError, match="'10%' is a share of the whole run"):
        Duration.parse("10%").steps(100)


def test_epochs_are_rounded_up() -> None:
    assert Duration.parse("101st").epochs(steps_per_epoch=100) == 2
    assert Duration.parse("100st").epochs(steps_per_epoch=100) == 1
    assert Duration.parse("50%").epochs(steps_per_epoch=100, total_steps=900) == 5


@given(value=st.integers(1, 10**6), unit=st.sampled_from(["ep", "st"]), per_epoch=st.integers(1, 10**4))
def test_text_survives_and_epochs_cover_the_steps(value: int, unit: str, per_epoch: int) -> None:
    duration = Duration.parse(f"{value}{unit}")
    assert Duration.parse(str(duration)) == duration
    steps = duration.steps(per_epoch)
    assert steps == (value * per_epoch if unit == "ep" else value)
    assert (duration.epochs(per_epoch) - 1) * per_epoch < steps <= duration.epochs(per_epoch) * per_epoch
