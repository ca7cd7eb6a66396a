"""How the runs of a sweep fare: ``python status.py``; see ``conf/status.yaml``."""

from altprop.commands.entry import entry_point


def status(config: object) -> None:
    """Load what the table needs only now, so that ``--help`` answers at once."""
    from altprop.commands.status import show

    show(config)  # type: ignore[arg-type]


if __name__ == "__main__":
    entry_point("status", status)
