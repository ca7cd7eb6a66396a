"""From the command line to objects: schema, validation, building. Nothing else sees Hydra or OmegaConf."""
