from __future__ import annotations

import os
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from altprop.config.build import build
from altprop.config.compose import compose
from altprop.config.environment import group_of
from altprop.problems import ConfigError
from altprop.training.parts import Parts
from altprop.training.run import train

SECRET = "s3cr3t-t0ken"
SHOWN = "${oc.env:TOKEN}"
SMALL = ("model.hidden=[4]", "trainer.duration=1ep", "dataset.limit_train=100", "dataset.limit_test=50", "trainer.figures=false")


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)


def parts_of(*overrides: str) -> Parts:
    return build(compose(overrides))[0]


PLACES: dict[str, tuple[list[str], Any]] = {
    # overrides -> what is stored of tags
    "alone": (["tags=['${oc.env:TOKEN}']"], [SHOWN]),
    "in a text": (["tags=['a-${oc.env:TOKEN}-b']"], [f"a-{SHOWN}-b"]),
    "twice": (["tags=['${oc.env:TOKEN}${oc.env:TOKEN}']"], [SHOWN * 2]),
    "behind a key": (["group=${oc.env:TOKEN}", "tags=['${group}']"], [SHOWN]),
    "with a default": (["tags=['${oc.env:TOKEN,other}']"], [SHOWN]),
    "decoded": (["tags=['${oc.decode:${oc.env:TOKEN}}']"], ["${oc.decode:${oc.env:TOKEN}}"]),
    "a list of texts": (["+a=['${oc.env:TOKEN}']", "tags=${a}"], [SHOWN]),
    "through another resolver": (["tags=['${oc.deprecated:group}']", "group=${oc.env:TOKEN}"], [SHOWN]),
    "a default that counts": (["tags=['${oc.env:NOT_THERE,other}']"], ["other"]),
}


@pytest.mark.parametrize("case", PLACES)
@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_text_of_a_variable_is_stored_as_its_name(case: str) -> None:
    overrides, expected = PLACES[case]
    parts = parts_of(*overrides)
    assert parts.config["tags"] == list(parts.tags) == yaml.safe_load(parts.config_text)["tags"] == expected
    assert SECRET not in parts.config_text


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=${oc.env:NUMBER}", "seed", 3),
        ("optimizer.lr='${oc.decode:${oc.env:NUMBER}}'", "optimizer.lr", 3),
        ("model.hidden='${oc.decode:${oc.env:NUMBERS}}'", "model.hidden", [8, 4]),
        ("name=of/${oc.env:TOKEN}", "name", f"of/{SECRET}"),
        ("paths.data=/${oc.env:TOKEN}", "paths.data", f"/{SECRET}"),
        ("model.units._target_=torch.nn.${oc.env:UNITS}", "model.units._target_", "torch.nn.ReLU"),
    ],
)
def test_numbers_folders_and_classes_are_stored(override: str, key: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("NUMBER", "3"), ("NUMBERS", "[8,4]"), ("UNITS", "ReLU")):
        monkeypatch.setenv(name, text)
    config: Any = parts_of(override).config
    for name in key.split("."):
        config = config[name]
    assert config == value


def test_the_key_depends_on_the_value_and_the_objects_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    override = ["dataset=image_folder", "dataset.folder=${oc.env:TOKEN}"]
    monkeypatch.setattr("altprop.data.sets.image_folder.class_folders", lambda folder: ["a", "b"])
    first = parts_of(*override)
    assert first.data_set.folder == SECRET  # type: ignore[attr-defined]
    assert first.key == parts_of(override[0], f"dataset.folder={SECRET}").key
    monkeypatch.setenv("TOKEN", "another")
    assert parts_of(*override).key != first.key


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    tmp_path = tmp_path_factory.mktemp("outputs")
    os.environ |= {"TOKEN": SECRET, "HOW": "random"}  # the fixture for single tests comes later
    logger = ["logger=tensorboard", "tags=['${oc.env:TOKEN}']", "group=${oc.env:TOKEN}", "dataset.validation.how=${oc.env:HOW}"]
    parts = parts_of(*SMALL, *logger, f"paths.outputs={tmp_path}")
    train(parts)
    del os.environ["TOKEN"], os.environ["HOW"]
    return parts


def test_no_file_of_a_run_holds_the_value(trained: Parts) -> None:
    files = [file for file in trained.outputs.rglob("*") if file.is_file()]
    assert {"last.pt", "config.yaml", "meta.json", "status.json"} <= {file.name for file in files}
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []
    assert SHOWN in (trained.directory / "config.yaml").read_text()


def test_a_run_resumes_only_with_the_variable(trained: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("altprop.config.restore.overridden_keys", lambda: [])
    monkeypatch.setenv("HOW", "random")
    monkeypatch.delenv("TOKEN")  # of labels, which are stored and nothing else
    again = parts_of(f"run={trained.directory}")
    assert (again.key, {**again.config, "run": None}) == (trained.key, trained.config)
    monkeypatch.setenv("HOW", "tail")
    with pytest.raises(ConfigError, match="unless HOW, TOKEN had another value in the environment"):
        parts_of(f"run={trained.directory}")
    monkeypatch.delenv("HOW")
    with pytest.raises(ConfigError) as refusal:
        parts_of(f"run={trained.directory}")
    assert [str(problem) for problem in refusal.value.problems] == [
        "dataset.validation.how: comes from the environment, where HOW is not set; "
        "the value that the run was started with; try: export HOW=…"
    ]


def test_a_sweep_stores_the_name_of_the_variable_too() -> None:
    assert group_of(compose(["group=x-${oc.env:TOKEN}"])) == f"x-{SHOWN}"
    assert group_of(compose(["name=mine"])) == "mine"
