"""Tables, figures and an HTML page from many runs: ``python report.py``. See ``conf/report.yaml``."""

from altprop.commands.entry import entry_point


def report(config: object) -> None:
    """Import the report only when it runs, so that ``--help`` answers at once."""
    from altprop.commands.report import report as run

    run(config)  # type: ignore[arg-type]


if __name__ == "__main__":
    entry_point("report", report)
