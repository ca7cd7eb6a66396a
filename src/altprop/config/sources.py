"""How Hydra reads configuration files: measured before they are expanded, so that a hostile file is an error and not a hang."""

from __future__ import annotations

import pickle
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

from altprop.files import read_bytes
from altprop.yaml_files import MAX_BYTES, UnsafeYAML, measure

_loaded: dict[tuple[str, int, int, int], bytes] = {}
"""What was read, by path, inode, size and time of change: a sweep composes the same files for each job.

It is kept pickled, because unpickling makes a separate copy several times as fast as ``copy.deepcopy``.
"""


def measure_files() -> None:
    """Let Hydra read the configuration files of this process through :class:`MeasuredFiles`."""
    Plugins.instance()  # registers Hydra's own classes first
    SourcesRegistry.instance().types[MeasuredFiles.scheme()] = MeasuredFiles


class MeasuredFiles(FileConfigSource):
    """A folder of configuration files. Loading one raises ``UnsafeYAML`` if it expands to too many values."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Load the file ``config_path`` below the folder. A file that has not changed is read once per process."""
        file = Path(self.path) / self._normalize_file_name(config_path)
        if not file.is_file():
            return super().load_config(config_path)
        state = file.stat()
        key = (f"{self.provider}:{file}", state.st_ino, state.st_size, state.st_mtime_ns)
        if key not in _loaded:
            if state.st_size > MAX_BYTES:
                raise UnsafeYAML(problem=f"{file} is larger than {MAX_BYTES // 2**20} MB")
            measure(read_bytes(file).decode(errors="replace"), str(file))
            _loaded[key] = pickle.dumps(super().load_config(config_path), pickle.HIGHEST_PROTOCOL)
        result: ConfigResult = pickle.loads(_loaded[key])
        return result
