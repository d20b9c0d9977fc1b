"""Model families as assets: their names and dependencies. Imports no family."""

import dagster as dg

from configs.plugins import plugged_in
from serving.contracts.messages import ALGORITHMS
from training.models.registry import families, is_ensemble
from training.tuning.search_space import is_searchable


def released_families() -> tuple[str, ...]:
    """The families that releases hold: those of every installation, and this one's plug-ins."""
    return (*ALGORITHMS, *plugged_in())


def base_models_of(family: str) -> tuple[str, ...]:
    """The base models of an ensemble: the built-in families that are no ensembles. Empty for any other family.

    A plug-in serves under its own name only, so that it cannot make the built-in ensemble worse.
    """
    if not is_ensemble(family):
        return ()
    return tuple(other for other in families() if other in ALGORITHMS and not is_ensemble(other))


def configuration_key(family: str) -> dg.AssetKey:
    """The asset of the search for the family's hyper-parameters."""
    return dg.AssetKey(["configuration", asset_name(family)])


def searchable_families() -> tuple[str, ...]:
    """The families that have a search space: those without base models first, since ensembles use what they found."""
    return tuple(sorted(filter(is_searchable, families()), key=lambda family: (is_ensemble(family), family)))


def asset_name(family: str) -> str:
    """The name of a family's asset. Dagster allows no hyphens in names."""
    return family.replace("-", "_")
