"""The figure of the alignment probe."""

from pathlib import Path

import pytest
from matplotlib import image

from altprop.reporting.figures import run_figures
from altprop.reporting.figures.alignment import ANGLE, NORM_RATIO, by_layer, draw_alignment


def record(step: int, **angles: float) -> dict[str, float]:
    values = {f"{ANGLE}{name}": angle for name, angle in angles.items()}
    return {"epoch": step / 10, "step": step, **values, **{f"{NORM_RATIO}{name}": 0.5 for name in angles}}


def test_angles_by_layer() -> None:
    records = [record(1, a=10.0, b=80.0), {"epoch": 0.1, "step": 2, "test/loss": 1.0}, record(11, b=float("nan"), c=95.0)]
    assert by_layer(records, ANGLE) == {"a": ([1], [10.0]), "b": ([1], [80.0]), "c": ([11], [95.0])}


@pytest.mark.parametrize("layers", [1, 3, 40])
@pytest.mark.parametrize("top", [60.0, 110.0, 170.0])
def test_any_number_of_layers_is_drawn(layers: int, top: float, tmp_path: Path) -> None:
    names = [f"layer{index}" for index in range(layers)]
    records = [record(step, **{name: top * (index + 1) / layers for index, name in enumerate(names)}) for step in (1, 11, 21)]
    path = draw_alignment(records, tmp_path / "alignment.png", title="a run")
    assert path is not None
    assert image.imread(path).std() > 0


def test_a_zero_update_is_left_out_of_the_logarithmic_axis(tmp_path: Path) -> None:
    assert draw_alignment([{"epoch": 0.1, "step": 1, f"{ANGLE}a": 90.0, f"{NORM_RATIO}a": 0.0}], tmp_path / "a.png") is not None


def test_drawn_only_if_records_contain_alignments(tmp_path: Path) -> None:
    evaluation = {"epoch": 1.0, "step": 10, "test/loss": 1.0, "test/accuracy": 90.0}
    assert [path.stem for path in run_figures.draw([record(1, a=3.0), evaluation], tmp_path)] == ["curves", "alignment"]
    assert [path.stem for path in run_figures.draw([evaluation], tmp_path)] == ["curves"]
