"""Sparse, tied and pruned rules built from their configurations: combinations, published rows and mistakes."""

from __future__ import annotations

import pytest
from hydra.utils import instantiate

from altprop.config.checks.validation import problems_of
from altprop.config.compose import compose
from altprop.config.plain import to_plain
from altprop.config.project import CONF
from altprop.nn.weights.sparse.dynamic import DynamicSparse

RULES = ("static_sparse", "dynamic_sparse", "set", "deep_r", "rigl", "tied", "iterative_pruning")
ROWS = sorted(path.stem for path in (CONF / "experiment" / "dsr").glob("*.yaml"))


def node(*overrides: str) -> dict:
    plain, problems = to_plain(compose(overrides))
    assert not problems
    return plain["algorithm"]["weights"]


@pytest.mark.parametrize("prune", ["threshold", "fraction", "sign_change"])
@pytest.mark.parametrize("redistribute", ["proportional", "within"])
@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_every_combination_is_built(prune, redistribute, grow):
    overrides = [f"algorithm/weights/{name}={choice}" for name, choice in (("prune", prune), ("redistribute", redistribute))]
    rule = instantiate(node("algorithm/weights=dynamic_sparse", *overrides, f"algorithm/weights/grow={grow}"), _convert_="all")
    assert isinstance(rule, DynamicSparse)
    names = [type(part).__name__.lower() for part in (rule.prune, rule.redistribute, rule.grow)]
    choices = (prune, redistribute, grow)
    assert all(name.startswith(choice.replace("_", "")[:6]) for name, choice in zip(names, choices))


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("algorithm.weights.sparsity=1.0", "algorithm.weights.sparsity"),
        ("algorithm.weights.sparsity={conv:0.5,linear:-1}", "algorithm.weights.sparsity"),
        ("algorithm.weights.granularity=0", "algorithm.weights.granularity"),
        ("algorithm.weights.period=[[5,100]]", "algorithm.weights.period"),
        ("algorithm.weights.period=[[0,0]]", "algorithm.weights.period"),
        ("algorithm.weights.period=[[0,1.5]]", "algorithm.weights.period"),
        ("algorithm.weights.prune.target=0", "algorithm.weights.prune.target"),
        ("algorithm.weights.prune.gain=1.0", "algorithm.weights.prune.gain"),
        ("algorithm.weights.penalty.coefficient=-1.0", "algorithm.weights.penalty.coefficient"),
        ("algorithm.weights.new_weights=one", "algorithm.weights.new_weights"),
        ("algorithm.weights.stop_epoch=-1", "algorithm.weights.stop_epoch"),
    ],
)
def test_each_mistake_is_one_line(override, key):
    problems = problems_of(compose(["algorithm/weights=dynamic_sparse", override]))
    assert [problem.key for problem in problems] == [key]
    assert "\n" not in str(problems[0])


def test_signs_need_single_weights():
    problems = problems_of(compose(["algorithm/weights=deep_r", "algorithm.weights.granularity=2"]))
    assert [problem.key for problem in problems] == ["algorithm.weights.granularity"]
    problems = problems_of(compose(["algorithm/weights=deep_r", "algorithm.weights.noise.temperature=[[1,1.0]]"]))
    assert [problem.key for problem in problems] == ["algorithm.weights.noise.temperature"]


@pytest.mark.parametrize("row", ROWS)
def test_rows_have_no_problem_except_missing_data(row):
    assert [problem for problem in problems_of(compose([f"experiment=dsr/{row}"])) if problem.key != "dataset"] == []


@pytest.mark.parametrize("rule", RULES)
def test_every_key_of_a_rule_is_explained(rule):
    text = (CONF / "algorithm" / "weights" / f"{rule}.yaml").read_text()
    assert text.startswith("# ")
    assert f"algorithm/weights={rule}" in text.splitlines()[0]


@pytest.mark.parametrize(
    ("row", "sparsity", "fraction"),
    [("wrn_set", 0.9, 0.138), ("wrn_set", 0.5, 0.028), ("r50_set", 0.8, 0.089), ("r50_set", 0.9, 0.14)],
)
def test_fractions_follow_sparsity(row, sparsity, fraction):
    assert node(f"experiment=dsr/{row}", f"algorithm.weights.sparsity={sparsity}")["prune"]["fraction"] == fraction


def test_a_sparsity_without_a_published_fraction_needs_one():
    row = ["experiment=dsr/wrn_set", "algorithm.weights.sparsity=0.85"]
    (problem,) = (problem for problem in problems_of(compose(row)) if problem.key != "dataset")
    assert (problem.description, problem.fix) == ("null does not fit", "algorithm.weights.prune.fraction=…")
    assert all(problem.key == "dataset" for problem in problems_of(compose([*row, "algorithm.weights.prune.fraction=0.1"])))


@pytest.mark.parametrize(("stop_epoch", "epochs"), [("100", [100]), ("30", [30]), ("null", [])])
def test_the_checkpoint_of_the_final_structure_is_kept(stop_epoch, epochs):
    config = compose(["experiment=dsr/wrn_stop", f"algorithm.weights.stop_epoch={stop_epoch}"])
    assert all(problem.key == "dataset" for problem in problems_of(config))
    assert to_plain(config)[0]["trainer"]["keep_epochs"] == epochs


@pytest.mark.parametrize(
    ("row", "override", "table"),
    [
        ("wrn_thin", "model.width=1.15", "WRN-28-2, thin dense, width 1.15"),
        ("r50_thin", "model.width=0.46", "ResNet-50, thin dense, width 0.46"),
        ("wrn_stop", "algorithm.weights.stop_epoch=30", "WRN-28-2, dynamic sparse, stop epoch 30"),
    ],
)
def test_the_title_of_a_row_contains_the_swept_value(row, override, table):
    assert to_plain(compose([f"experiment=dsr/{row}", override]))[0]["paper"]["table"] == table


def test_published_settings_of_some_rows():
    """Rows B, F and K of section 6.1."""
    plain, _ = to_plain(compose(["experiment=dsr/wrn_prune"]))
    assert (plain["trainer"]["duration"], plain["optimizer"]["weight_decay"]) == ("48ep", 5e-4)
    assert plain["algorithm"]["weights"]["profile"] == "cubic"
    plain, _ = to_plain(compose(["experiment=dsr/wrn_deepr"]))
    assert plain["optimizer"]["weight_decay"] == 0.0
    assert plain["algorithm"]["weights"]["penalty"]["coefficient"] == 1e-5
    plain, _ = to_plain(compose(["experiment=dsr/wrn_mask_init"]))
    assert plain["trainer"]["duration"] == "400ep"
    assert plain["schedule"]["scheduler"]["values"][1] == [120, 0.02]
    plain, _ = to_plain(compose(["experiment=dsr/r50_mask_init"]))
    assert plain["dataset"]["batch_size"] == 100
    assert (plain["trainer"]["duration"], plain["optimizer"]["weight_decay"]) == ("200ep", 1e-4)
