"""Model families as the asset graph sees them. Imports none of them."""

from serving.contracts.messages import ALGORITHMS
from training.models.registry import families, is_ensemble


def base_models_of(family: str) -> tuple[str, ...]:
    """The families that an ensemble combines: those that every installation serves, ensembles left out; else none.

    A plug-in answers under its own name; what it is no base model of cannot be made worse by it.
    """
    if not is_ensemble(family):
        return ()
    return tuple(other for other in families() if other in ALGORITHMS and not is_ensemble(other))


def asset_name(family: str) -> str:
    """Dagster's names have no hyphens."""
    return family.replace("-", "_")
