import sys

import pytest

from altprop.code_identity import code_differences, code_identity


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    """A package with one module, which configurations can name."""
    package = tmp_path / "own_package_of_a_user"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text("WIDTH = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    sys.modules.pop(package.name, None)


def test_packages_that_the_configuration_names_are_part_of_the_identity(own_package):
    config = {"model": {"units": [{"_target_": f"{own_package.name}.model.Units"}], "_target_": "torch.nn.Linear"}}
    identity = code_identity(config)
    assert list(identity) == ["altprop", own_package.name]
    assert all(len(entry["content"]) == 12 for entry in identity.values())
    assert code_differences(identity, code_identity(config)) == []


def test_a_changed_file_is_a_difference(own_package):
    config = {"model": {"_target_": f"{own_package.name}.model.Net"}}
    before = code_identity(config)
    (own_package / "model.py").write_text("WIDTH = 2\n")
    (difference,) = code_differences(before, code_identity(config))
    assert difference.startswith(f"{own_package.name} was ")
    assert before[own_package.name]["content"] in difference


def test_packages_that_are_not_there_are_left_out():
    assert list(code_identity({"model": {"_target_": "package_that_is_not_installed.Net"}})) == ["altprop"]
