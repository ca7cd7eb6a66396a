"""ImageNet from class folders."""

from __future__ import annotations

import torch

from altprop.data.loading.recipes import Crops
from altprop.data.sets.imagenet import ImageNet
from altprop.data.validation import Validation
from tests.data.writers import write_image_folder

SETTINGS = {"batch_size": 6, "eval_batch_size": 7, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_loads(context):
    write_image_folder(context.root / "imagenet", {"train": 10, "val": 4}, [(40, 30), (33, 47)], ("n01", "n02"))
    settings = {**SETTINGS, "crops": Crops(size=24, resize=28), "workers": 0}
    data = ImageNet(**settings, validation=Validation(size=0.1, how="random", seed=4), limit_test=5).load(context)
    assert data.input_shape == (3, 24, 24)
    assert data.class_names == ("n01", "n02")
    assert (data.train.num_samples, data.validation.num_samples, data.test.num_samples) == (18, 2, 5)
    # Validation images get the crop of evaluation, which is the same in every epoch.
    for (inputs, targets), (other_inputs, other_targets) in zip(
        data.validation.batches(0), data.validation.batches(1), strict=True
    ):
        assert torch.equal(inputs, other_inputs)
        assert torch.equal(targets, other_targets)


def test_missing_folders_are_reported_in_one_line(tmp_path):
    (problem,) = ImageNet.check({"folder": "imagenet"}, {"paths": {"data": str(tmp_path)}})
    assert str(tmp_path / "imagenet") in str(problem)
    assert problem.fix == f"python data.py action=unpack_imagenet paths.data={tmp_path}"
