"""The config group ``metrics``."""

from __future__ import annotations

import pytest

from altprop._torchvision import import_torchvision
from altprop.config.checks.validation import plain_and_valid, problems_of
from altprop.config.compose import compose
from altprop.config.key import run_key
from altprop.problems import Problem

TOP_K = "_target_:altprop.metrics.top_k,_partial_:true"


def problems(*overrides: str) -> list[Problem]:
    return problems_of(compose(overrides))


def test_metrics_are_choices_or_nodes_by_name() -> None:
    assert problems("metrics=top5") == []
    assert problems("metrics=[top5]", f"+metrics.top3={{{TOP_K},k:3}}") == []
    assert problems("metrics=top5", "trainer.select_on=test/top5", "trainer.early_stopping={metric: train/top5}") == []


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        (["metrics=top5", "metrics.top5.k=x"], "metrics.top5.k", "a whole number"),
        (["metrics=top5", "metrics.top5.k=100000"], "metrics.top5.k", "a whole number from 1 to 1000"),
        (["metrics=top5", "+metrics.top5.n=3"], "metrics.top5.n", "no such argument"),
        (["metrics=top5", "+metrics.top5.scores=3"], "metrics.top5.scores", "supplied by altprop"),
        ([f"+metrics.accuracy={{{TOP_K}}}"], "metrics.accuracy", "every run has"),
        (["+metrics.x={_target_:torch.nn.ReLU,_partial_:true}"], "metrics.x._target_", "torchmetrics.Metric"),
        (["+metrics.x={_target_:altprop.metrics.top_k}"], "metrics.x._partial_", "must be true"),
        (["+metrics.x=3"], "metrics.x", "no _target_"),
        (["metrics=top5", "trainer.select_on=test/top6"], "trainer.select_on", "try: trainer.select_on=test/top5"),
        (["trainer.early_stopping={metric: test/top5}"], "trainer.early_stopping.metric", "try: metrics=top5"),
        (["trainer.select_on=best"], "trainer.select_on", "auto | validation | test | last"),
    ],
)
def test_mistakes_are_one_line(overrides: list[str], key: str, message: str) -> None:
    [problem] = problems(*overrides)
    assert problem.key == key
    assert message in str(problem)


def test_a_metric_that_falls_is_named_so() -> None:
    import_torchvision()  # torchmetrics imports it
    pytest.importorskip("torchmetrics")
    hinge = "{_target_:torchmetrics.classification.MulticlassHingeLoss,_partial_:true}"
    [problem] = problems(f"+metrics.hinge={hinge}")
    assert problem.key == "metrics.hinge"
    assert problems(f"+metrics.hinge_loss={hinge}") == []
    [problem] = problems(f"+metrics.hinge_loss={hinge}", "trainer.early_stopping={metric: train/hinge_loss}")
    assert "not computed in training" in problem.description


def test_runs_without_own_metrics_keep_their_keys() -> None:
    plain = plain_and_valid(compose())
    key = run_key({name: value for name, value in plain.items() if name != "metrics"})
    assert run_key(plain) == run_key({**plain, "metrics": {}}) == key
    assert run_key(plain_and_valid(compose(["metrics=top5"]))) != key
