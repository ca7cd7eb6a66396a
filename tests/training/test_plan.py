"""What a plan in steps says about images."""

from __future__ import annotations

import pytest

from altprop.training.plan import Plan


@pytest.mark.parametrize(
    ("steps_per_epoch", "batch_size", "num_samples", "step", "images"),
    [
        (5, 100, 450, 4, 400),
        (5, 100, 450, 5, 450),  # the last mini-batch has 50
        (5, 100, 450, 11, 1000),
        (4, 100, 450, 8, 800),  # drop_last, or trainer.limit_batches
        (1, 1000, 400, 3, 1200),  # a mini-batch larger than the training set
    ],
)
def test_images_of_smaller_last_batches_are_counted(
    steps_per_epoch: int, batch_size: int, num_samples: int, step: int, images: int
) -> None:
    assert Plan(steps_per_epoch, 100, batch_size, None, None).images(step, num_samples) == images
