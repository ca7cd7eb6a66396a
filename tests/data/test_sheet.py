"""The contact sheet of training images."""

from __future__ import annotations

import numpy as np
from PIL import Image

from altprop.data.augmentation import Augmentation
from altprop.data.sets.shapes import Shapes
from altprop.data.sheet import draw_sheet


def test_plain_images_are_on_the_left_and_augmented_images_on_the_right(context, tmp_path):
    settings = {"batch_size": 50, "eval_batch_size": 50, "mean": [0.4], "std": [0.2], "train_size": 200, "test_size": 10}
    data_set = Shapes(**settings, augmentation=Augmentation(padding=12, padding_mode="zeros", flip=0.5))
    draw_sheet(data_set.load(context), data_set.mean, data_set.std, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet).astype(int)
    black = (pixels.sum(2) == 0)[4:68]
    assert black[:, 320:].mean() > 0.2  # borders added by padding
    assert black[:, 110:310].mean() < 0.02
    first = Image.fromarray(data_set.read(tmp_path).train.pixels[0].transpose(1, 2, 0)).resize((64, 64), Image.Resampling.NEAREST)
    assert np.abs(pixels[4:68, 110:174] - np.asarray(first)).max() <= 1
