"""A command line that can be composed with and without each of its overrides, to find the wrong ones."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from altprop.config.compose import Composer, JobComposer
from altprop.sweeping import grid

CompositionError = (
    *(HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError, AssertionError, AttributeError),
    RecursionError,  # a value is nested more deeply than OmegaConf can go
)
"""What Hydra raises while it composes: its own exceptions and a few built-in ones."""
MAX_JOBS = 1000
"""Jobs of a sweep that are composed to find a mistake."""


@dataclass(frozen=True)
class CommandLine:
    """A configuration name and the overrides to compose it with.

    ``typed`` maps an override of a job to the override of its sweep that it came from; what came from a file is not in it.
    """

    config_name: str
    overrides: list[str]
    multirun: bool
    composer: Composer
    typed: Mapping[str, str] = field(default_factory=dict)

    def without(self, override: str) -> CommandLine:
        """The same command line without one override."""
        overrides = list(self.overrides)
        overrides.remove(override)
        return dataclasses.replace(self, overrides=overrides)

    def compose(self) -> DictConfig:
        return self.composer.compose(self.config_name, self.overrides, multirun=self.multirun)

    def error(self) -> Exception | None:
        """The exception that composing raises, or None."""
        try:
            self.compose()
        except CompositionError as error:
            return error
        return None

    def failure(self) -> tuple[Exception, CommandLine] | None:
        """The first exception that composing this line or one of the jobs of its sweep raises, with the line that raises it."""
        try:
            master = self.compose()
            composer = JobComposer(self.composer.loader, master)
            for job in self.jobs(master) if self.multirun else ():
                try:
                    composer.compose(job.overrides)
                except CompositionError as error:
                    return job.error() or error, job
        except CompositionError as error:
            return error, self
        return None

    def jobs(self, master: DictConfig) -> Iterator[CommandLine]:
        """The command line of each job of the sweep ``master``; a search has one for the low end of each range.

        Raises ConfigError and HydraException for lists of values that make no sweep.
        """
        sweeper = master.hydra.sweeper
        searches = "trials" in sweeper
        parser = OverridesParser.create(config_loader=self.composer.loader)
        params = [f"{key}={grid.written(value)}" for key, value in (sweeper.get("params") or {}).items()]
        typed = [override for override in parser.parse_overrides(self.overrides) if not override.is_hydra_override()]
        effective = grid.effective(parser.parse_overrides(params), typed)
        grid.check(effective, self.composer.loader)
        if not searches:
            grid.check_number_of_runs(effective)
        choices = []
        for override in effective:
            value = override.value()
            if searches and isinstance(value, IntervalSweep):
                texts = [f"{override.get_key_element()}={value.start}"]
            else:
                texts = grid.texts_of(override, self.composer.loader)
            choices.append([(text, override.input_line if override in typed else None) for text in texts])
        for job in itertools.islice(itertools.product(*choices), MAX_JOBS):
            words = {text: str(source) for text, source in job if source is not None}
            yield CommandLine(self.config_name, [text for text, _ in job], False, self.composer, words)

    def wrong_value(self) -> str | None:
        """The first override that cannot be applied after all choices of groups and the values before it, or None.

        Hydra makes all choices first and then sets values in order.
        """
        parsed = {text: self.parsed(text) for text in self.overrides}
        values = {text: override for text, override in parsed.items() if override is not None and self._sets_a_value(override)}
        try:
            choices = [text for text in self.overrides if text not in values]
            config = self.composer.compose(self.config_name, choices, multirun=self.multirun)
        except CompositionError:
            return None
        for text, override in values.items():
            try:
                ConfigLoaderImpl._apply_overrides_to_config([override], config)
            except CompositionError:
                return text
        return None

    def _sets_a_value(self, override: Override) -> bool:
        key = override.key_or_group
        if override.is_sweep_override() or key == "hydra.searchpath":
            return False
        assert isinstance(self.composer.loader, ConfigLoaderImpl)
        return isinstance(override.value(), dict) or not self.composer.loader.repository.group_exists(key)

    def find(self, key: str) -> str | None:
        """The override that sets the key or group ``key``, or None."""
        for text in self.overrides:
            override = self.parsed(text)
            if override is not None and key in (override.key_or_group, override.get_key_element().lstrip("+~")):
                return text
        return None

    def parsed(self, text: str) -> Override | None:
        """``text`` as Hydra parses it, or None if it cannot."""
        try:
            return OverridesParser.create(self.composer.loader).parse_override(text)
        except HydraException:
            return None
