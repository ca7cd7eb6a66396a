"""A command line that can be composed with and without each of its overrides, to find the wrong ones."""

from __future__ import annotations

from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from altprop.config.compose import Composer

CompositionError = (HydraException, OmegaConfBaseException, YAMLError, ValueError, AssertionError, AttributeError)
"""What Hydra raises while it composes: its own exceptions and a few built-in ones."""


@dataclass(frozen=True)
class CommandLine:
    """A configuration name and the overrides to compose it with."""

    config_name: str
    overrides: list[str]
    multirun: bool
    composer: Composer

    def without(self, override: str) -> CommandLine:
        """The same command line without one override."""
        overrides = list(self.overrides)
        overrides.remove(override)
        return CommandLine(self.config_name, overrides, self.multirun, self.composer)

    def compose(self) -> DictConfig:
        return self.composer.compose(self.config_name, self.overrides, multirun=self.multirun)

    def error(self) -> Exception | None:
        """The exception that composing raises, or None."""
        try:
            self.compose()
        except CompositionError as error:
            return error
        return None

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
