"""Lets programs that nobody waits for yield the processor to those that answer requests."""

import os

BACKGROUND = 10
"""The niceness of training, pipelines, Dagster and MLflow. A program that answers gets nine times their share of a core
that both want; a core that it does not want is theirs."""


def run_in_background() -> None:
    """Lower the priority of this process, and of those that it starts from now on. It is never raised."""
    os.setpriority(os.PRIO_PROCESS, 0, max(BACKGROUND, os.getpriority(os.PRIO_PROCESS, 0)))
