"""``python -m altprop`` is the command ``altprop``."""

from altprop.commands.main import main

if __name__ == "__main__":
    main()
