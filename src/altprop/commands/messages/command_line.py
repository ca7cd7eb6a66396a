"""One command line under examination: composed with and without its single overrides."""

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
"""What Hydra raises while it composes: its own exceptions, and a few built-in ones."""


@dataclass(frozen=True)
class CommandLine:
    """What is being composed."""

    config_name: str
    overrides: list[str]
    multirun: bool
    composer: Composer

    def without(self, override: str) -> CommandLine:
        """The same without one override."""
        kept = list(self.overrides)
        kept.remove(override)
        return CommandLine(self.config_name, kept, self.multirun, self.composer)

    def compose(self) -> DictConfig:
        return self.composer.compose(self.config_name, self.overrides, multirun=self.multirun)

    def error(self) -> Exception | None:
        """What composing raises, or None."""
        try:
            self.compose()
        except CompositionError as error:
            return error
        return None

    def find(self, key: str) -> str | None:
        """The override that sets the key or group ``key``."""
        for text in self.overrides:
            override = self.parsed(text)
            if override is not None and key in (override.key_or_group, override.get_key_element().lstrip("+~")):
                return text
        return None

    def parsed(self, text: str) -> Override | None:
        """``text`` as Hydra understands it; None where it does not."""
        try:
            return OverridesParser.create(self.composer.loader).parse_override(text)
        except HydraException:
            return None
