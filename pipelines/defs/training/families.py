"""Model families as the asset graph sees them. Imports none of them."""

from serving.contracts.messages import ALGORITHMS
from training.models.registry import families, is_blend


def components_of(family: str) -> tuple[str, ...]:
    """The families that a blend blends: all that are served, blends left out. Empty for any other family."""
    if not is_blend(family):
        return ()
    return tuple(other for other in families() if other in ALGORITHMS and not is_blend(other))


def asset_name(family: str) -> str:
    """Dagster's names have no hyphens."""
    return family.replace("-", "_")
