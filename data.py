"""List, fetch, look at and unpack data sets: ``python data.py action=…``. See ``conf/data.yaml``."""

from altprop.commands.main import main

if __name__ == "__main__":
    main("data")
