"""The tiny problem of :mod:`altprop.testing`, for altprop's own tests."""

from altprop.testing import (
    BATCH,
    INPUT_SHAPE,
    NUM_CLASSES,
    SAMPLES,
    SGD,
    STEPS_PER_EPOCH,
    Case,
    TinySplit,
    Training,
    assert_equal,
)

__all__ = [
    "BATCH",
    "INPUT_SHAPE",
    "NUM_CLASSES",
    "SAMPLES",
    "SGD",
    "STEPS_PER_EPOCH",
    "Case",
    "TinySplit",
    "Training",
    "assert_equal",
]
