"""Composing a configuration without running it: for hints, for checks over all experiments, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from altprop.config.project import CONF, register_resolvers
from altprop.config.schema import register_schema


@contextmanager
def config_loader(extra_folder: str | None = None) -> Iterator[Composer]:
    """A composer over ``conf`` and, before it, ``extra_folder`` (Hydra's ``--config-dir``)."""
    register_resolvers()
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), job_name="train", version_base="1.3"):
        yield Composer(GlobalHydra.instance().config_loader(), extra_folder)


class Composer:
    """Composes configurations; raises what Hydra raises."""

    def __init__(self, loader: ConfigLoader, extra_folder: str | None = None) -> None:
        self.loader = loader
        self.extra = [] if extra_folder is None else [f"hydra.searchpath=[file://{extra_folder}]"]

    def compose(self, config_name: str, overrides: Sequence[str], *, multirun: bool = False) -> DictConfig:
        """The configuration with its ``hydra`` node. With ``multirun`` lists of values are left to the sweeper."""
        return self.loader.load_configuration(
            config_name=config_name,
            overrides=[*overrides, *self.extra],
            run_mode=RunMode.MULTIRUN if multirun else RunMode.RUN,
        )


def compose(overrides: Sequence[str] = (), config_name: str = "train") -> DictConfig:
    """The configuration that ``python train.py <overrides>`` would run with."""
    with config_loader() as composer:
        config = composer.compose(config_name, overrides)
    with open_dict(config):
        del config["hydra"]
    return config
