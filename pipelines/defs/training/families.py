"""Model families as assets: their names and dependencies. Imports no family."""

from serving.contracts.messages import ALGORITHMS
from training.models.registry import families, is_ensemble


def base_models_of(family: str) -> tuple[str, ...]:
    """The base models of an ensemble: the built-in families that are no ensembles. Empty for any other family.

    A plug-in serves under its own name only, so that it cannot make the built-in ensemble worse.
    """
    if not is_ensemble(family):
        return ()
    return tuple(other for other in families() if other in ALGORITHMS and not is_ensemble(other))


def asset_name(family: str) -> str:
    """The name of a family's asset. Dagster allows no hyphens in names."""
    return family.replace("-", "_")
