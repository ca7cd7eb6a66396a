"""The configuration files as a package, so that Hydra finds them as ``altprop.conf`` (``initialize_config_module``)."""
