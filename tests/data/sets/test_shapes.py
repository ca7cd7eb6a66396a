"""The drawn shapes, which need no download."""

from __future__ import annotations

import numpy as np
import torch

from altprop.data.sets import shapes
from altprop.data.sets.shapes import Shapes

NODE = {"batch_size": 10, "eval_batch_size": 10, "mean": [0.5], "std": [0.5], "validation": {"size": 0}}


def test_images_depend_on_their_seed_only():
    first, again, other = (shapes.draw_images.__wrapped__("train", 30, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)
    assert not np.array_equal(first.pixels, shapes.draw_images.__wrapped__("test", 30, 0).pixels)
    assert first.pixels.dtype == np.uint8
    assert first.pixels.shape == (30, 3, 32, 32)
    assert first.labels.tolist() == list(range(10)) * 3


def test_first_images_do_not_depend_on_how_many_follow():
    few, many = (shapes.draw_images.__wrapped__("train", count, 0) for count in (20, 620))
    assert np.array_equal(few.pixels, many.pixels[:20])
    assert len(many) == 620
    assert many.labels.tolist() == [number % 10 for number in range(620)]


def test_loads(context):
    data = Shapes(batch_size=20, eval_batch_size=50, mean=[0.427], std=[0.252], train_size=500, test_size=60).load(context)
    assert data.input_shape == (3, 32, 32)
    assert data.class_names[-1] == "half disc"
    inputs = torch.cat([inputs for inputs, _ in data.train_plain.batches()])
    assert inputs.mean().abs() < 0.1
    assert 0.9 < inputs.std() < 1.1


def test_values_out_of_range_are_problems():
    keys = [problem.key for problem in Shapes.check({**NODE, "train_size": 0, "test_size": -1}, {})]
    assert keys == ["dataset.train_size", "dataset.test_size"]
    (problem,) = Shapes.check({**NODE, "train_size": 100, "test_size": 10, "validation": {"size": 100}}, {})
    assert problem.key == "dataset.validation.size"


def test_a_small_convolutional_network_learns_them_and_a_linear_model_does_not(context):
    from torch import nn

    data = Shapes(batch_size=50, eval_batch_size=500, mean=[0.427], std=[0.252], train_size=2000, test_size=500).load(context)

    def accuracy(model: nn.Module, epochs: int) -> float:
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for epoch in range(epochs):
            for inputs, targets in data.train.batches(epoch):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
        model.eval()
        with torch.inference_mode():
            correct = sum(int((model(inputs).argmax(1) == targets).sum()) for inputs, targets in data.test.batches())
        return 100 * correct / data.test.num_samples

    def stage(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert accuracy(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), 4) < 45
        convnet = nn.Sequential(*stage(3, 16), *stage(16, 32), *stage(32, 32), nn.Flatten(), nn.Linear(512, 10))
        assert accuracy(convnet, 6) > 60
