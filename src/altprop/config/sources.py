"""How Hydra reads configuration files: measured before they are expanded, so that a hostile file is an error and not a hang."""

from __future__ import annotations

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

from altprop.files import read_bytes
from altprop.yaml_files import MAX_BYTES, UnsafeYAML, measure


def measure_files() -> None:
    """Let Hydra read the configuration files of this process through :class:`MeasuredFiles`."""
    Plugins.instance()  # registers Hydra's own classes first
    SourcesRegistry.instance().types[MeasuredFiles.scheme()] = MeasuredFiles


class MeasuredFiles(FileConfigSource):
    """A folder of configuration files. Loading one raises ``UnsafeYAML`` if it expands to too many values."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Load the file ``config_path`` below the folder."""
        file = Path(self.path) / self._normalize_file_name(config_path)
        if file.is_file():
            if file.stat().st_size > MAX_BYTES:
                raise UnsafeYAML(problem=f"{file} is larger than {MAX_BYTES // 2**20} MB")
            measure(read_bytes(file).decode(errors="replace"), str(file))
        return super().load_config(config_path)
