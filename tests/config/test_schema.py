import dataclasses
import re

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ValidationError

from altprop.config.compose import compose
from altprop.config.project import CONF
from altprop.config.schema import RootConfig, structured
from altprop.training.settings import TrainerSettings


def test_the_trainer_file_has_every_field_with_its_default_and_a_comment() -> None:
    file = CONF / "trainer" / "default.yaml"
    assert OmegaConf.to_container(OmegaConf.load(file)) == dataclasses.asdict(TrainerSettings())
    keys = [line for line in file.read_text().splitlines() if re.match(r"\w+:", line)]
    assert len(keys) == len(dataclasses.fields(TrainerSettings))
    assert [line for line in keys if not re.search(r"\S\s+# \S", line)] == []


def test_the_schema_is_the_settings_class() -> None:
    assert OmegaConf.to_container(OmegaConf.structured(structured(TrainerSettings))) == dataclasses.asdict(TrainerSettings())


def test_types_of_root_and_trainer_are_enforced() -> None:
    config = OmegaConf.structured(structured(RootConfig))
    with pytest.raises(ValidationError):
        config.seed = "one"
    with pytest.raises(ValidationError):
        config.trainer.keep = "many"
    with pytest.raises(ConfigAttributeError):
        OmegaConf.update(config, "trainer.epochs", 3)


def test_a_misspelled_root_key_in_a_file_is_an_error_with_its_name(tmp_path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "wrong.yaml").write_text("# @package _global_\nsede: 3\n")
    with pytest.raises(ConfigCompositionException, match=r"(?s)experiment/wrong.*sede"):
        compose(["experiment=wrong", f"hydra.searchpath=[file://{tmp_path}]"])


def test_early_stopping_is_set_as_a_whole() -> None:
    stopping = compose(["trainer.early_stopping={patience: 3}"]).trainer.early_stopping
    assert stopping == {"patience": 3}


def test_paths_are_in_the_project_regardless_of_the_current_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALTPROP_DATA", raising=False)
    monkeypatch.delenv("ALTPROP_OUTPUTS", raising=False)
    paths = compose().paths
    assert (paths.data, paths.outputs) == (str(CONF.parent / "data"), str(CONF.parent / "outputs"))
    monkeypatch.setenv("ALTPROP_DATA", "/somewhere")
    assert compose().paths.data == "/somewhere"
