"""A run small enough to be trained dozens of times in a test."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.schedule import Schedule
from altprop.data.base import Data, LoadContext
from altprop.models.mlp import MLP
from altprop.training.parts import Parts
from altprop.training.settings import TrainerSettings
from tests.algorithms.harness import INPUT_SHAPE, NUM_CLASSES, TinySplit


class TinyDataSet:
    """The suite's tiny problem as a data set."""

    def load(self, context: LoadContext) -> Data:
        names = tuple(str(number) for number in range(NUM_CLASSES))
        train, plain, validation, test = (
            TinySplit(seed, shuffle=shuffle, device=context.device)
            for seed, shuffle in ((1, True), (1, False), (3, False), (2, False))
        )
        return Data(train, plain, validation, test, INPUT_SHAPE, NUM_CLASSES, names)


def make_parts(outputs: Path, *, seed: int = 0, key: str = "0123456789ab", resume: bool = True, **settings: Any) -> Parts:
    """Parts of a run on the tiny problem; ``settings`` go to the trainer."""
    return Parts(
        data_set=TinyDataSet(),
        model_factory=partial(MLP, hidden=(8,), units=partial(nn.Dropout, 0.2)),
        algorithm=settings.pop("algorithm", None) or Backprop(),
        optimizer_factory=settings.pop("optimizer", partial(torch.optim.Adam, lr=0.01)),
        schedule=settings.pop("schedule", None) or Schedule(),
        trackers={},
        settings=TrainerSettings(**{"duration": "4ep", "figures": False, "log_every": 5, **settings}),
        data_root=outputs,
        outputs=outputs,
        name="tiny",
        key=key,
        seed=seed,
        group="tiny",
        tags=(),
        resume=resume,
        config={"seed": seed},
        config_text=f"seed: {seed}\n",
    )
