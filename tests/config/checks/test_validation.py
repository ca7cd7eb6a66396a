from typing import Any

import pytest
from omegaconf import DictConfig, open_dict

from altprop.config.checks.validation import plain_and_valid, problems_of, problems_of_plain
from altprop.config.compose import compose
from altprop.problems import ConfigError, Problem

HERE = "tests.config.checks.targets"


def problems(*overrides: str) -> list[Problem]:
    return problems_of(compose(overrides))


def keys(*overrides: str) -> list[str]:
    return [problem.key for problem in problems(*overrides)]


def with_dataset(node: dict[str, Any]) -> DictConfig:
    """A valid configuration with ``node`` as its data set, a key that accepts any class."""
    config = compose()
    with open_dict(config):
        config.dataset = node
    return config


def only_problem(config: DictConfig) -> Problem:
    problems = problems_of(config)
    assert len(problems) == 1, problems
    return problems[0]


def test_the_default_is_valid_and_plain() -> None:
    plain = plain_and_valid(compose())
    assert type(plain["model"]["hidden"]) is list
    assert type(plain["dataset"]) is dict
    assert problems_of_plain(plain) == []


def test_all_problems_are_reported_at_once() -> None:
    wrong_keys = keys(
        "model.hidden=x",
        "+algorithm.foo=3",
        "trainer.precision=fp23",
        "trainer.duration=3",
        "algorithm.weights._target_=altprop.nn.weights.base.Dnse",
        "optimizer.betas=[0.9]",
        "name=${nothing}",
    )
    assert sorted(wrong_keys) == [
        "algorithm.foo",
        "algorithm.weights._target_",
        "model.hidden",
        "name",
        "optimizer.betas",
        "trainer.duration",
        "trainer.precision",
    ]
    with pytest.raises(ConfigError) as raised:
        plain_and_valid(compose(["model.hidden=x", "trainer.duration=3"]))
    assert len(str(raised.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("path", "message", "fix"),
    [
        ("torch.optim.Adamm", "torch.optim has no module, class or function Adamm", "optimizer._target_=torch.optim.Adam"),
        ("torch.optmi.Adam", "torch has no module, class or function optmi", "optimizer._target_=torch.optim.Adam"),
        (
            "altprop.algorithms.decoupled_greedy.Nope",
            "altprop.algorithms has no module, class or function decoupled_greedy",
            "optimizer._target_=altprop.algorithms.DecoupledGreedy",
        ),
        ("nowhere.Adam", "no module nowhere", ""),
        ("torch.optim", "not a class or function", ""),
        ("os.system", "has no return type", ""),
        ("torch.nn.Linear", "is not an Optimizer", ""),
    ],
)
def test_targets_that_do_not_exist_or_have_the_wrong_type(path: str, message: str, fix: str) -> None:
    [problem] = problems(f"optimizer._target_={path}")
    assert problem.key == "optimizer._target_"
    assert message in problem.description
    if fix:
        assert problem.fix == fix


def test_unknown_arguments_suggest_the_nearest() -> None:
    problem = only_problem(with_dataset({"_target_": f"{HERE}.Derived", "widths": [1], "dephth": 3}))
    assert problem == Problem(
        "dataset.dephth",
        "Derived has no such argument",
        "its arguments: depth, loss, widths, mode",
        "~dataset.dephth +dataset.depth=3",
    )


def test_a_list_entry_that_cannot_be_resolved_is_one_problem() -> None:
    (problem,) = problems("trainer.keep_epochs=[1,'${name}']")
    assert problem.key == "trainer.keep_epochs[1]"
    assert problem.description.startswith("'${name}' cannot be resolved")


@pytest.mark.parametrize("value", ["maybe", "nan", "[abc]", "{a:1}"])
def test_learning_rates_of_layers_that_are_no_numbers_are_one_problem(value: str) -> None:
    (problem,) = problems("algorithm=equilibrium_propagation", "model=eqprop_cnn", f"algorithm.learning_rates={value}")
    assert problem.key.startswith("algorithm.learning_rates")


@pytest.mark.parametrize(
    "override",
    [
        "dataset.mean=[127]",
        "dataset.mean=[-1]",
        "dataset.std=[58]",
        "optimizer.eps=1e12",
        "optimizer.weight_decay=1e12",
        "model.init_scale=1e12 model=eqprop_mlp algorithm=equilibrium_propagation",
        "algorithm.beta=1e12 model=eqprop_mlp algorithm=equilibrium_propagation",
        "algorithm.label_scale=1e12 algorithm=forward_forward model.batch_norm=false",
    ],
)
def test_numbers_that_no_run_means_are_refused(override: str) -> None:
    assert keys(*reversed(override.split())) == [override.partition("=")[0]]


def test_missing_arguments_are_reported_with_their_type() -> None:
    problem = only_problem(with_dataset({"_target_": f"{HERE}.Derived"}))
    assert (problem.key, problem.fix) == ("dataset.widths", "+dataset.widths=…")
    assert "a list of whole numbers" in problem.allowed


def test_wrong_choices_suggest_the_nearest() -> None:
    problem = only_problem(with_dataset({"_target_": f"{HERE}.Derived", "widths": [1], "mode": "slwo"}))
    assert (problem.key, problem.allowed, problem.fix) == ("dataset.mode", "it must be fast | slow", "dataset.mode=slow")


def test_nested_nodes_are_checked_in_mappings_and_lists() -> None:
    wrong = {"_target_": f"{HERE}.factory", "sise": 3}
    config = with_dataset({"_target_": f"{HERE}.anything", "one": {"two": [{"three": wrong}]}})
    assert [problem.key for problem in problems_of(config)] == [
        "dataset.one.two[0].three.sise",
        "dataset.one.two[0].three.size",
    ]


def test_a_nested_node_must_build_what_its_parent_takes() -> None:
    fitting = {"_target_": f"{HERE}.Derived", "widths": [1], "loss": {"_target_": f"{HERE}.factory", "size": 2}}
    assert problems_of(with_dataset(fitting)) == []
    problem = only_problem(with_dataset({**fitting, "loss": {"_target_": f"{HERE}.Picky", "rate": 1}}))
    assert problem.key == "dataset.loss._target_"


def test_a_class_checks_its_own_node_and_sees_the_whole_configuration() -> None:
    problem = only_problem(with_dataset({"_target_": f"{HERE}.Derived", "widths": []}))
    assert problem.allowed == "at least one width for scratch"


def test_arguments_that_altprop_supplies_cannot_be_configured() -> None:
    supplied = problems("+model.num_classes=3", "+optimizer.params=[]")
    assert [(problem.key, problem.fix) for problem in supplied] == [
        ("model.num_classes", "~model.num_classes"),
        ("optimizer.params", "~optimizer.params"),
    ]


def test_nodes_that_must_be_partial_and_nodes_that_must_not() -> None:
    assert keys("model._partial_=false") == ["model._partial_"]
    assert keys("+algorithm._partial_=true") == ["algorithm._partial_"]
    assert keys("+model._args_=[1]") == ["model._args_"]


def test_missing_values_and_unknown_interpolations_are_one_line_each() -> None:
    unresolved = problems("name=???", "optimizer=other", "trainer.device=${oc.env:ALTPROP_TEST_NOWHERE}", "tags=[a,${nothing}]")
    assert sorted(problem.key for problem in unresolved) == ["name", "optimizer._target_", "tags[1]", "trainer.device"]
    assert not any("\n" in str(problem) for problem in unresolved)


def test_a_node_without_a_target_is_reported_with_its_group() -> None:
    problem = only_problem(with_dataset({"batch_size": 3}))
    assert (problem.key, problem.description, problem.fix) == ("dataset", "has no _target_", "dataset=…")


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        (["optimizer.lr=-1"], "optimizer.lr", "a number from 0 to 1000"),
        (["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"], "optimizer", "Nesterov"),
        (["optimizer=other", "optimizer._target_=torch.optim.LBFGS"], "optimizer._target_", "several times"),
        (["schedule=piecewise", "~schedule.scheduler.values", "+schedule.scheduler.values={3:0.1}"], "schedule", "from 0 on"),
        (["schedule=onecycle", "schedule.scheduler.pct_start=2.0"], "schedule.scheduler.pct_start", "from 0 to 1"),
        (["schedule.interval=batch"], "schedule.interval", "batch"),
        (["schedule=multistep", "schedule.scheduler.milestones=[5,x]"], "schedule.scheduler.milestones", "[5,x]"),
        (["schedule=cosine", "schedule.scheduler.T_max=all"], "schedule.scheduler.T_max", "all"),
    ],
)
def test_what_torch_refuses_is_a_problem_before_anything_is_built(overrides: list[str], key: str, message: str) -> None:
    [problem] = problems(*overrides)
    assert problem.key == key
    assert message in str(problem)


@pytest.mark.parametrize(
    "name", ["constant", "multistep", "cosine", "exponential", "onecycle", "plateau", "piecewise", "warmup_cosine"]
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_schedule_works_with_every_optimizer(name: str, optimizer: str) -> None:
    assert problems(f"schedule={name}", f"optimizer={optimizer}") == []


def test_any_class_of_torch_can_be_used_from_the_command_line() -> None:
    assert problems("optimizer=other", "optimizer._target_=torch.optim.NAdam", "+optimizer.lr=0.002") == []
    step = ["schedule=other", "schedule.scheduler._target_=torch.optim.lr_scheduler.StepLR", "+schedule.scheduler.step_size=3"]
    assert problems(*step) == []


def test_early_stopping_gets_its_defaults_and_is_checked() -> None:
    plain = plain_and_valid(compose(["trainer.early_stopping={metric: train/loss}"]))
    assert plain["trainer"]["early_stopping"] == {"metric": "train/loss", "patience": 5, "min_delta": 0.0}
    assert keys("trainer.early_stopping={metric: accuracy}") == ["trainer.early_stopping.metric"]
    assert keys("trainer.early_stopping={patiense: 3}") == ["trainer.early_stopping.patiense"]
    assert keys("trainer.early_stopping=3") == ["trainer.early_stopping"]


def test_a_stored_configuration_is_checked_in_the_same_way() -> None:
    plain = plain_and_valid(compose())
    plain["optimizer"]["_target_"] = "os.system"
    assert [problem.key for problem in problems_of_plain(plain)] == ["optimizer._target_"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("+logger.mine.path=x", "logger.mine: has no _target_; a tracker with a _target_, or null, which switches it off; try: "),
        ("+logger.wandb.project=x", "try: logger=wandb logger.wandb.project=x"),
        ("+logger.tensorboard=true", "logger.tensorboard: true does not fit"),
        ("logger.console=off", "logger.console: off does not fit"),
        ("+logger.mine=[1]", "logger.mine: [1] does not fit"),
    ],
)
def test_a_logger_is_a_node_or_null(override: str, line: str) -> None:
    [problem] = problems(override)
    assert line in str(problem)
    assert keys("logger=tensorboard", "logger.tensorboard=null") == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.lr='0.01'", "optimizer.lr: '0.01' does not fit; it must be a number from 0 to 1000 and this is text"),
        ("optimizer.lr='0.01'", "try: optimizer.lr=0.01, or 'optimizer.lr=\"${oc.decode:${oc.env:<variable>}}\"'"),
        ("optimizer.lr=${oc.env:LR}", "optimizer.lr: '0.5' does not fit"),
        ("optimizer.lr=${optimizer.bets}", "try: optimizer.lr=${optimizer.betas}"),
        ("model.hidden=[${model.hiden}]", "model.hidden[0]: '${model.hiden}' cannot be resolved"),
        ("trainer.duration=${trainer.duratoin}", "trainer.duration: '${trainer.duratoin}' cannot be resolved"),
        (
            "dataset.limit_train='100'",
            "dataset.limit_train: '100' does not fit; it must be a whole number of at least 1",
        ),
        ("dataset.limit_train=None", "try: dataset.limit_train=null"),
    ],
)
def test_text_is_shown_with_the_quotes_that_it_needs(override: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LR", "0.5")
    [problem] = problems(override)
    assert line in str(problem)
    assert "object at" not in str(problem)


def test_a_variable_of_the_environment_can_be_read_as_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LR", "0.5")
    assert keys('optimizer.lr="${oc.decode:${oc.env:LR}}"') == []


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/tmp/x", "''", "a//b", ".", "${oc.env:HOME}"])
def test_a_name_stays_below_the_outputs(name: str) -> None:
    assert keys(f"name={name}") == ["name"]


@pytest.mark.parametrize("name", ["mine", "mine/quick", "a..b", "2.5"])
def test_other_names_are_free(name: str) -> None:
    assert keys(f"name='{name}'") == []


@pytest.mark.parametrize("name", ["latest", "latest/a", ".hidden", "a/.b", " ", "a/ /b", "a\nb", "a\x1b[31m", "a\0b"])
def test_names_that_a_folder_or_a_report_cannot_use_are_refused(name: str) -> None:
    config = compose()
    config.name = name
    [problem] = problems_of(config)
    assert problem.key == "name"
    assert str(problem).isprintable()


@pytest.mark.parametrize("path", ["", "  ", "a\0b", "a\nb"])
def test_empty_and_unprintable_folders_are_refused(path: str) -> None:
    config = compose()
    config.paths.outputs = path
    [problem] = problems_of(config)
    assert problem.key == "paths.outputs"
    assert str(problem).isprintable()


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("trainer.early_stopping={metric:{_target_:nowhere.Nothing}}", "trainer.early_stopping.metric"),
        ("trainer.early_stopping={metric:{a:1}}", "trainer.early_stopping.metric"),
        ("trainer.keep_epochs=[{_target_:nowhere.Nothing}]", "trainer.keep_epochs"),
    ],
)
def test_settings_hold_no_nodes(override: str, key: str) -> None:
    assert keys(override) == [key]
