"""What Dagster loads: the definitions of every area, and what all areas share.

An area is a folder of `pipelines/defs`. Its module `definitions` has a function `definitions(installation)`, which is
found by name and returns the area's assets, checks, jobs, sensors and schedules. A new area needs no entry here.
"""

import pkgutil
from collections.abc import Callable
from importlib import import_module

import dagster as dg

from pipelines import defs
from pipelines.annotations import annotated
from pipelines.io_managers import JsonIOManager, values_folder
from pipelines.jobs import backfill, retrain
from pipelines.resources import Installation

AreaDefinitions = Callable[[Installation], dg.Definitions]


def build_definitions(installation: Installation) -> dg.Definitions:
    """The whole pipeline over this installation."""
    shared = dg.Definitions(
        jobs=[retrain, backfill],
        resources={
            "installation": installation,
            "io_manager": JsonIOManager(folder=str(values_folder(installation.paths))),
        },
    )
    return annotated(dg.Definitions.merge(shared, *(area(installation) for area in _areas())), installation)


@dg.definitions
def definitions() -> dg.Definitions:
    """The pipeline of the installation that the environment describes."""
    return build_definitions(Installation())


def _areas() -> list[AreaDefinitions]:
    names = sorted(module.name for module in pkgutil.iter_modules(defs.__path__) if module.ispkg)
    return [import_module(f"{defs.__name__}.{name}.definitions").definitions for name in names]
