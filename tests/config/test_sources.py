"""Configuration files are read once per process, and anew when they have changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra._internal.core_plugins.file_config_source import FileConfigSource

from altprop.config.sources import MeasuredFiles


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    load = FileConfigSource.load_config

    def counted(self: FileConfigSource, config_path: str) -> object:
        reads.append(config_path)
        return load(self, config_path)

    monkeypatch.setattr(FileConfigSource, "load_config", counted)
    source = MeasuredFiles("test", f"file://{tmp_path}")
    (tmp_path / "one.yaml").write_text("a: 1\n")
    first = source.load_config("one")
    first.config.a = 2  # the composed configuration is the caller's own
    assert source.load_config("one").config == {"a": 1}
    (tmp_path / "one.yaml").write_text("a: 30\n")
    assert source.load_config("one").config == {"a": 30}
    assert len(reads) == 2
