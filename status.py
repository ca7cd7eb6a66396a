"""How the runs of a sweep fare: ``python status.py``; see ``conf/status.yaml``."""

from altprop.commands.main import main

if __name__ == "__main__":
    main("status")
