"""`python -m training`: measure model families on a data set, or look for better hyper-parameters."""

import logging
import os

from configs.logging import configure
from configs.priority import run_in_background
from training.cli import app

if __name__ == "__main__":
    run_in_background()
    configure("training")
    if not os.environ.get("LOG_LEVEL"):
        logging.getLogger().setLevel(logging.WARNING)  # log lines of libraries would break the progress bars
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from training.models.deep_learning.distributed import run_with_torchrun  # imports torch

        run_with_torchrun(app)
    else:
        app()
