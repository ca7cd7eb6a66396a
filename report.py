"""Tables, figures and an HTML page from many runs: ``python report.py``. See ``conf/report.yaml``."""

from altprop.commands.main import main

if __name__ == "__main__":
    main("report")
