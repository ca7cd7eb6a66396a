"""Data sets: ``python data.py action=list | fetch | sheet | unpack_imagenet``. See ``conf/data.yaml``."""

from altprop.commands.entry import entry_point


def data(config: object) -> None:
    """Load what the actions need only now, so that ``--help`` answers at once."""
    from altprop.commands.data import run

    run(config)  # type: ignore[arg-type]


if __name__ == "__main__":
    entry_point("data", data)
