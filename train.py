"""Train: ``python train.py [group=choice ...] [key=value ...]``; ``python train.py --help`` lists what there is."""

from altprop.commands.entry import entry_point
from altprop.commands.train import check_task, run_task

if __name__ == "__main__":
    entry_point("train", run_task, check_task)
