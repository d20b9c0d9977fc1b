"""Model families as the asset graph sees them. Imports none of them."""

from serving.contracts.messages import ALGORITHMS
from training.models.registry import families, is_blend


def components_of(family: str) -> tuple[str, ...]:
    """The families that a blend blends: those that every installation serves, blends left out; else none.

    A plug-in answers under its own name; what it does not blend into cannot be made worse by it.
    """
    if not is_blend(family):
        return ()
    return tuple(other for other in families() if other in ALGORITHMS and not is_blend(other))


def asset_name(family: str) -> str:
    """Dagster's names have no hyphens."""
    return family.replace("-", "_")
