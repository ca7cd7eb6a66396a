"""Classes of the user's own: ``model=other``, what is left of another choice, and modules that cannot be imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from altprop.config.checks.validation import problems_of
from altprop.config.compose import compose
from altprop.problems import Problem

OWN = """\
from torch import nn
from altprop.algorithms import Backprop

class Net(nn.Module):
    def __init__(self, width: int = 8, *, input_shape, num_classes):
        super().__init__()

class Data:
    def __init__(self, batch_size: int):
        self.batch_size = batch_size

class Mine(Backprop):
    def __init__(self, *, samples: int = 1, loss=None, weights=None, estimator=None):
        super().__init__(loss=loss, weights=weights, estimator=estimator)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of an importable package with a module ``own``."""
    name = f"own_{abs(hash(request.node.nodeid))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def problems(*overrides: str) -> list[Problem]:
    return problems_of(compose(overrides))


@pytest.mark.parametrize(
    ("group", "cls", "arguments"),
    [
        ("model", "Net", "+model.width=4"),
        ("dataset", "Data", "+dataset.batch_size=4"),
        ("algorithm", "Mine", "+algorithm.samples=4"),
    ],
)
def test_other_takes_any_class(package: str, group: str, cls: str, arguments: str) -> None:
    assert problems(f"{group}=other", f"{group}._target_={package}.own.{cls}", arguments) == []


@pytest.mark.parametrize("group", ["model", "dataset", "algorithm", "optimizer"])
def test_other_without_a_class_is_one_line(group: str) -> None:
    assert [problem.key for problem in problems(f"{group}=other")] == [f"{group}._target_"]


@pytest.mark.parametrize(
    ("overrides", "named", "fix"),
    [
        (["model._target_=altprop.models.VGG"], "model=mlp", "model=other model._target_=altprop.models.VGG"),
        (["dataset._target_=torch.nn.ReLU"], "another choice of dataset", "dataset=other dataset._target_=torch.nn.ReLU"),
        (["optimizer._target_=torch.optim.SGD"], "optimizer=adam", "optimizer=other optimizer._target_=torch.optim.SGD"),
        (
            ["algorithm=decoupled_greedy", "algorithm._target_=altprop.algorithms.Backprop"],
            "algorithm=decoupled_greedy",
            "algorithm=other algorithm._target_=altprop.algorithms.Backprop",
        ),
        (
            ["schedule=cosine", "schedule.scheduler._target_=torch.optim.lr_scheduler.StepLR"],
            "schedule=cosine",
            "schedule=other schedule.scheduler._target_=torch.optim.lr_scheduler.StepLR",
        ),
    ],
)
def test_another_target_alone_is_one_line(overrides: list[str], named: str, fix: str) -> None:
    [problem] = problems(*overrides)
    assert problem.key.endswith("._target_")
    assert named in problem.description
    assert problem.fix == fix


def test_a_misspelt_argument_of_an_own_class_is_still_named(package: str) -> None:
    [problem] = problems("model=other", f"model._target_={package}.own.Net", "+model.widht=4")
    assert problem.fix == "~model.widht +model.width=4"


@pytest.mark.parametrize(
    ("source", "error", "line"),
    [
        ("\nimport notthere\n", "ModuleNotFoundError: No module named 'notthere'", 2),
        ("x = 1\ndef f(:\n", "SyntaxError", 2),
        ("x = 1\n\nx / 0\n", "ZeroDivisionError: division by zero", 3),
        ("from torch import nothere\n", "ImportError: cannot import name 'nothere'", 1),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3", 2),
    ],
)
@pytest.mark.parametrize("key", ["model", "algorithm.weights"])
def test_an_error_in_a_users_module_is_shown_with_its_place(
    package: str, tmp_path: Path, source: str, error: str, line: int, key: str
) -> None:
    file = tmp_path / package / "broken.py"
    file.write_text(source)
    overrides = ["model=other"] if key == "model" else []
    [problem] = problems(*overrides, f"{key}._target_={package}.broken.Net")
    assert error in problem.description
    assert f"({file}, line {line})" in problem.description
    assert len(str(problem).splitlines()) == 1


def test_an_error_in_a_module_that_the_users_module_imports_is_shown(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "broken.py").write_text("import notthere\n")
    (tmp_path / package / "outer.py").write_text(f"from {package} import broken\n")
    [problem] = problems("model=other", f"model._target_={package}.outer.Net")
    assert f"No module named 'notthere' ({tmp_path / package / 'broken.py'}, line 1)" in problem.description


def test_names_that_do_not_exist_are_not_import_errors(package: str) -> None:
    [wrong_name] = problems("model=other", f"model._target_={package}.own.Nett")
    assert wrong_name.fix == f"model._target_={package}.own.Net"
    [wrong_module] = problems("model=other", f"model._target_={package}.nowhere.Net")
    assert f"{package} has no module, class or function nowhere" in wrong_module.description


@pytest.mark.parametrize(
    ("path", "parameters"),
    [("torch.optim.Muon", "vectors"), ("torch.optim.SparseAdam", "matrices"), ("torch.optim.LBFGS", "several times")],
)
def test_optimizers_that_cannot_train_a_network_are_refused(path: str, parameters: str) -> None:
    [problem] = problems("optimizer=other", f"optimizer._target_={path}")
    assert problem.key == "optimizer._target_"
    assert parameters in problem.description


@pytest.mark.parametrize("name", ["Adadelta", "Adafactor", "Adagrad", "Adamax", "ASGD", "NAdam", "RAdam", "Rprop", "SGD"])
def test_every_other_optimizer_of_torch_is_accepted(name: str) -> None:
    assert problems("optimizer=other", f"optimizer._target_=torch.optim.{name}") == []


def parts(first: str = "1", last: str = "total") -> str:
    scheduler = "torch.optim.lr_scheduler"
    rise = f"{{_target_:{scheduler}.LinearLR,_partial_:true,start_factor:0.1,total_iters:{first}}}"
    return f"+schedule.scheduler.schedulers=[{rise},{{_target_:{scheduler}.CosineAnnealingLR,_partial_:true,T_max:{last}}}]"


def test_schedules_made_of_schedules() -> None:
    sequential = ["schedule=other", "schedule.scheduler._target_=torch.optim.lr_scheduler.SequentialLR"]
    chained = ["schedule=other", "schedule.scheduler._target_=torch.optim.lr_scheduler.ChainedScheduler"]
    assert problems(*sequential, "+schedule.scheduler.milestones=[1]", parts()) == []
    assert problems(*chained, parts()) == []
    [problem] = problems(*sequential, "+schedule.scheduler.milestones=[1]", parts(last="all"))
    assert problem.key == "schedule.scheduler.schedulers[1].T_max"
    [problem] = problems(*sequential, "+schedule.scheduler.milestones=[1,2]", parts())
    assert "2 schedulers need 1 milestone" in problem.description
