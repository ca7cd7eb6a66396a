"""From the command line to objects: schema, checks, building. Nothing below this package sees Hydra or OmegaConf."""

from altprop.config.resolvers import register_resolvers
from altprop.config.schema import register_schema

register_resolvers()
register_schema()
