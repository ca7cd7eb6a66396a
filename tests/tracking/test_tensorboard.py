"""The TensorBoard tracker, read back with TensorBoard's own reader."""

import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from altprop.reporting.figures.standard import draw_confusion
from altprop.tracking.fanout import Trackers
from altprop.tracking.tensorboard_tracker import TensorBoard

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*", "ignore::DeprecationWarning:google.*")


def events_of(directory) -> EventAccumulator:
    accumulator = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def points(directory, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events_of(directory).Scalars(name)]


def record(step: int, loss: float) -> dict[str, float]:
    return {"epoch": step / 10, "step": step, "train/loss": loss}


def session(info, records) -> None:
    trackers = Trackers({"tensorboard": TensorBoard()}, info.directory)
    trackers.start(info)
    for values in records:
        trackers.log(values)
    trackers.finish("done", {})


def test_scalars_figures_and_histograms(tmp_path, run_info):
    model = nn.Linear(3, 2)
    nn.init.constant_(model.bias, 0.25)
    trackers = Trackers({"tensorboard": TensorBoard(watch="parameters")}, tmp_path)
    trackers.start(run_info())
    trackers.watch(model)
    trackers.log(record(10, 0.5))
    trackers.log(record(20, 0.25))
    path = draw_confusion(torch.tensor([0, 1]), torch.tensor([0, 0]), ["a", "b"], tmp_path / "confusion.png")
    trackers.figure("confusion", path)
    trackers.finish("done", {})
    assert points(tmp_path, "train/loss") == [(10, 0.5), (20, 0.25)]
    assert points(tmp_path, "epoch") == [(10, 1.0), (20, 2.0)]
    events = events_of(tmp_path)
    assert "step" not in events.Tags()["scalars"]
    (image,) = events.Images("figures/confusion")
    assert image.step == 20
    assert image.encoded_image_string.startswith(b"\x89PNG")
    first, _ = events.Histograms("parameters/weight")
    assert first.histogram_value.num == 6
    bias = events.Histograms("parameters/bias")[0].histogram_value
    assert np.isclose(bias.sum / bias.num, 0.25, atol=0.01)


def test_a_resume_hides_points_after_its_checkpoint(tmp_path, run_info):
    session(run_info(), [record(10, 0.9), record(20, 0.8), record(30, 0.7)])
    session(run_info(resumed=True, start_step=10), [record(20, 0.6), record(30, 0.5)])
    assert points(tmp_path, "train/loss") == [(10, pytest.approx(0.9)), (20, pytest.approx(0.6)), (30, 0.5)]


def test_a_new_run_in_an_old_directory_hides_the_old_one(tmp_path, run_info):
    session(run_info(), [record(10, 0.9), record(20, 0.8)])
    session(run_info(), [record(10, 0.5)])
    assert points(tmp_path, "train/loss") == [(10, 0.5)]


def test_a_missing_package_is_a_problem_with_the_command_that_fixes_it(monkeypatch):
    assert list(TensorBoard.check({}, {})) == []
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("altprop.tracking.tensorboard_tracker.find_spec", lambda name: None)
    (problem,) = TensorBoard.check({}, {})
    assert problem.key == "logger.tensorboard"
    assert "pip install tensorboard" in problem.fix


def test_finishing_without_a_start_is_harmless():
    TensorBoard().finish("failed", {})
