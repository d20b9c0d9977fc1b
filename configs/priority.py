"""Lets programs that nobody waits for yield the processor to those that answer requests."""

import os

from pydantic import Field

from configs.settings import Settings


class PrioritySettings(Settings):
    """The priority of programs that answer no requests: training, pipelines, Dagster and MLflow."""

    niceness: int = Field(
        default=10,
        alias="BACKGROUND_NICENESS",
        ge=0,
        le=19,
        description="their niceness; at 10, a program that answers requests gets nine times their share of a core",
    )


def run_in_background() -> None:
    """Lower the priority of this process, and of those that it starts from now on. It is never raised."""
    niceness = PrioritySettings().niceness
    os.setpriority(os.PRIO_PROCESS, 0, max(niceness, os.getpriority(os.PRIO_PROCESS, 0)))
