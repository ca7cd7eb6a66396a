"""List, fetch, look at and unpack data sets: ``python data.py action=…``. See ``conf/data.yaml``."""

from altprop.commands.entry import entry_point


def data(config: object) -> None:
    """Import what the actions need only when they run, so that ``--help`` answers at once."""
    from altprop.commands.data import run

    run(config)  # type: ignore[arg-type]


if __name__ == "__main__":
    entry_point("data", data)
