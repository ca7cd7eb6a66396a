"""Evaluate a trained run: ``python evaluate.py run=outputs/<name>/<key>``. See ``conf/evaluate.yaml``."""

from altprop.commands.main import main

if __name__ == "__main__":
    main("evaluate")
