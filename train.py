"""Train: ``python train.py [group=choice ...] [key=value ...]``; ``python train.py --help`` lists what there is."""

from altprop.config.entry import check_task, entry_point, run_task

if __name__ == "__main__":
    entry_point("train", run_task, check_task)
