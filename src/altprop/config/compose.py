"""Compose configurations without running them: for one command line, or for all jobs of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from altprop.config.project import CONF
from altprop.config.sources import measure_files


@contextmanager
def config_loader(extra_folder: str | None = None) -> Iterator[Composer]:
    """A composer for ``conf``, which searches ``extra_folder`` (Hydra's ``--config-dir``) first."""
    GlobalHydra.instance().clear()
    measure_files()
    with initialize_config_dir(str(CONF), job_name="train", version_base="1.3"):
        yield Composer(GlobalHydra.instance().config_loader(), extra_folder)


class Composer:
    """Composes configurations. Raises whatever Hydra raises."""

    def __init__(self, loader: ConfigLoader, extra_folder: str | None = None) -> None:
        self.loader = loader
        self.extra = [] if extra_folder is None else [f"hydra.searchpath=[file://{extra_folder}]"]

    def compose(self, config_name: str, overrides: Sequence[str], *, multirun: bool = False) -> DictConfig:
        """The configuration with its ``hydra`` node. With ``multirun``, lists of values are left to the sweeper."""
        return self.loader.load_configuration(
            config_name=config_name,
            overrides=[*overrides, *self.extra],
            run_mode=RunMode.MULTIRUN if multirun else RunMode.RUN,
        )


def all_choices(loader: ConfigLoader, group: str) -> list[str]:
    """The choices of ``group`` and of the groups below it, as ``<folder>/<name>``."""
    choices = list(loader.get_group_options(group, ObjectType.CONFIG))
    for folder in loader.list_groups(group):
        if not folder.startswith("_"):  # shared parts of experiments
            choices += [f"{folder}/{name}" for name in all_choices(loader, f"{group}/{folder}")]
    return choices


def compose(overrides: Sequence[str] = (), config_name: str = "train") -> DictConfig:
    """The configuration that ``python train.py <overrides>`` would run with."""
    with config_loader() as composer:
        config = composer.compose(config_name, overrides)
    with open_dict(config):
        del config["hydra"]
    return config


class JobComposer:
    """Composes the same configurations as ``load_sweep_config``, ten times faster if jobs differ only in values.

    Composing a configuration from its files takes a third of a second; setting a value in it takes a millisecond.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        assert isinstance(loader, ConfigLoaderImpl)
        self.loader = loader
        self.master = master
        self._parser = OverridesParser.create(config_loader=loader)
        self._parsed: dict[str, Override] = {}
        self._composed: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}
        self._is_group: dict[str, bool] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of the job with ``overrides``, as the job sees it (without ``hydra``). Valid until the next call.

        Raises whatever Hydra raises.
        """
        return self.compose_with_hydra(overrides)[0]

    def compose_with_hydra(self, overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        """The same, and the node ``hydra`` as the files of the job set it."""
        values, others = self._divide(overrides)
        keys = tuple(str(override.key_or_group) for override in values)
        # Jobs that share a configuration set the same keys in it one after the other, so no value of the previous job remains.
        shared = (*others, "--", *keys)
        if shared not in self._composed:
            hydra_overrides = list(OmegaConf.to_container(self.master.hydra.overrides.hydra))  # type: ignore[arg-type]
            config = self.loader.load_configuration(
                self.master.hydra.job.config_name, [*hydra_overrides, *others], run_mode=RunMode.RUN
            )
            OmegaConf.copy_cache(from_config=self.master, to_config=config)
            with open_dict(config):
                hydra = config.pop("hydra")
            self._composed[shared] = (config, hydra)
        config, hydra = self._composed[shared]
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return config, hydra

    def _divide(self, overrides: Sequence[str]) -> tuple[list[Override], list[str]]:
        """The overrides that replace values and can come after all others, and the text of the others."""
        values: list[Override] = []
        others: list[str] = []
        later: list[str] = []  # keys of others that come later
        for text in reversed(overrides):
            override = self._parse(text)
            key = str(override.key_or_group).replace("[", ".")
            if self._sets_a_value(override) and not any(_overlap(key, other) for other in later):
                values.insert(0, override)
                continue
            others.insert(0, text)
            if not self._chooses(override):  # choices come before all values anyway
                later.append(key)
        return values, others

    def _parse(self, text: str) -> Override:
        if text not in self._parsed:
            self._parsed[text] = self._parser.parse_override(text)
        return self._parsed[text]

    def _sets_a_value(self, override: Override) -> bool:
        """Whether ``override`` replaces the value of a key, which has the same effect on any configuration."""
        key = str(override.key_or_group)
        if override.type != OverrideType.CHANGE or override.package is not None or key.startswith("hydra."):
            return False
        value = override.value()
        if isinstance(value, dict) or (isinstance(value, str) and "${" in value):
            return False
        return not self._chooses(override)

    def _chooses(self, override: Override) -> bool:
        """Whether ``override`` is the choice of a group, which Hydra makes before it sets values."""
        key = str(override.key_or_group)
        if key not in self._is_group:
            self._is_group[key] = self.loader.repository.group_exists(key)
        return self._is_group[key] and not isinstance(override.value(), dict)


def _overlap(one: str, other: str) -> bool:
    """Whether two dotted keys are equal or one is below the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


_COMPOSERS: WeakKeyDictionary[ConfigLoader, JobComposer] = WeakKeyDictionary()


def composer_of(loader: ConfigLoader, master: DictConfig) -> JobComposer:
    """The composer of the sweep ``master``, shared by its sweeper and its launcher."""
    known = _COMPOSERS.get(loader)
    if known is None or known.master is not master:
        known = _COMPOSERS[loader] = JobComposer(loader, master)
    return known
