"""Schema, composition and checks of configurations, and building objects from them. No package below sees Hydra or OmegaConf."""

from altprop.config.resolvers import register_resolvers
from altprop.config.schema import register_schema

register_resolvers()
register_schema()
