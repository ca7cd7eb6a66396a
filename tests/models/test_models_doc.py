"""The worked example of docs/models.md works."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import torch
import yaml

from tests.models.feed_forward_suite import CONF, CountingUnits, assert_feed_forward

DOC = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC, flags=re.DOTALL)


def test_worked_example(tmp_path, monkeypatch):
    source, use = blocks("python")
    (tmp_path / "separable.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    model_class = importlib.import_module("separable").SeparableNet
    names = {"SeparableNet": model_class, "CountingUnits": CountingUnits, "assert_feed_forward": assert_feed_forward}
    exec(use, {**names, "torch": torch})
    (config,) = [yaml.safe_load(text) for text in blocks("yaml")]
    assert config.pop("defaults") == [{"units": "relu"}, "_self_"]
    options = set(config) - {"_target_", "_partial_"}
    assert options | {"units", "input_shape", "num_classes"} == set(inspect.signature(model_class).parameters)


def test_the_page_names_every_choice_of_units():
    for path in (CONF / "model" / "units").glob("*.yaml"):
        assert f"`{path.stem}`" in DOC
