"""YAML that stands for far more than it contains is one line at once, wherever somebody else's YAML is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import altprop
from altprop.config.restore import read_config
from altprop.problems import ConfigError
from altprop.reporting.runs import read_runs
from altprop.yaml_files import MAX_BYTES, MAX_DEPTH, UnsafeYAML, measure, read_yaml
from tests.reporting.fixtures import write_run


def nested(first: str, step: str, levels: int = 60) -> str:
    """Level ``n`` refers to level ``n - 1`` nine times."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{n}: &a{n} {step.format(', '.join([f'*a{n - 1}'] * 9))}" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


BOMBS: dict[str, str] = {
    "aliases in lists": nested("[x]", "[{}]"),
    "aliases in mappings": nested("{x: 1}", "{{k: [{}]}}"),
    "merge keys": nested("{x: 1}", "{{<<: [{}]}}"),
    "a long text many times": f"a: &a {'x' * 10_000}\nb: [{', '.join(['*a'] * 10_000)}]\n",
    "a list in itself": "a: &a [*a]\n",
    "a mapping in itself": "a: &a {b: *a}\n",
    "deep lists": "a: " + "[" * 100_000,
    "deep mappings": "a: " + "{a: " * 100_000,
    "deep blocks": "a:\n  " + "- " * 100_000 + "x\n",
    "deep indentation": "\n".join(" " * n + f"k{n}:" for n in range(3000)),
    "a large file": "a: 1 #" + "x" * MAX_BYTES,
    "tags": "a: !!python/object/apply:os.system ['exit 1']\n",
    "a tag of a class": "a: !!python/name:os.system\n",
    "unknown tags": "a: !evil {b: 1}\n",
    "a number of 5,000 digits": f"a: {'9' * 5000}\n",
    "a number of 5,000 digits in base 16": f"a: 0x{'f' * 5000}\n",
    "half a character": 'a: "\\ud800"\n',
    "a pipe": "",
}


def write(case: str, file: Path) -> None:
    file.unlink(missing_ok=True)
    if case == "a pipe":
        os.mkfifo(file)
    else:
        file.write_text(BOMBS[case])


@pytest.mark.parametrize("case", BOMBS)
def test_as_the_configuration_of_a_run_it_is_one_line(case: str, tmp_path: Path) -> None:
    write_run(tmp_path, "good", "00000000000a", [1.0, 2.0])
    bad = write_run(tmp_path, "bad", "00000000000b", [1.0, 2.0])
    write(case, bad / "config.yaml")
    with pytest.raises(ConfigError, match=r"config\.yaml (cannot be read|is too large)") as refusal:
        read_config(bad)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
    runs, unreadable = read_runs(tmp_path)
    assert [run.name for run in runs] == ["good"]
    assert len(unreadable) == 1
    assert "\n" not in unreadable[0].reason


@pytest.mark.parametrize(
    ("case", "place"),
    [
        ("aliases in lists", "experiment/mine.yaml"),
        ("merge keys", "sweep/mine.yaml"),
        ("a list in itself", "model/mine.yaml"),
        ("deep lists", "local/default.yaml"),
    ],
)
def test_as_a_configuration_file_of_somebody_else_it_is_one_line(case: str, place: str, tmp_path: Path) -> None:
    file = tmp_path / place
    file.parent.mkdir()
    write(case, file)
    group = place.partition("/")[0]
    command: Callable[..., object] = altprop.sweep if group == "sweep" else altprop.train
    with pytest.raises(ConfigError) as refusal:
        command(*([] if group == "local" else [f"{group}=mine"]), f"hydra.searchpath=['file://{tmp_path}']")
    [problem] = refusal.value.problems
    assert str(file) in str(problem)
    assert "\n" not in str(problem)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 400])
def test_a_value_that_is_nested_too_deeply_is_one_line(levels: int, tmp_path: Path) -> None:
    """OmegaConf would need more of the stack than Python has."""
    value = "[" * levels + "]" * levels
    with pytest.raises(ConfigError, match=r"^trainer\.keep_epochs: ") as refusal:
        altprop.train(f"trainer.keep_epochs={value}", f"paths.outputs={tmp_path}/outputs")
    assert "\n" not in str(refusal.value)
    file = tmp_path / "model" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("_target_: " + "{a: " * levels + "1" + "}" * levels)
    with pytest.raises(ConfigError, match=f"{file}.*nested more than {MAX_DEPTH} deep") as refusal:
        altprop.train("model=mine", f"hydra.searchpath=['file://{tmp_path}']", f"paths.outputs={tmp_path}/outputs")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "outputs").exists()


def test_ordinary_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a [1, {b: x}]\nc: *a\nd: {<<: {e: 1}}\nf: 1.5\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": [1, {"b": "x"}], "c": [1, {"b": "x"}], "d": {"e": 1}, "f": 1.5}
    with pytest.raises(UnsafeYAML, match="contains itself"):
        measure("&a [*a]", "a file")
