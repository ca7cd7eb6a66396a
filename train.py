"""Train: ``python train.py [group=choice ...] [key=value ...]``; ``python train.py --help`` lists what there is."""

from altprop.commands.main import main

if __name__ == "__main__":
    main("train")
