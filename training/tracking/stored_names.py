"""Names in MLflow that earlier versions wrote differently, and the one way to read both spellings.

A tracking server keeps what was logged, so a rename here never reaches the runs and versions that are there already.
Today's name is always written; whoever reads passes what the server returned through `current_names`.
"""

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

PROMOTED = "promoted"
PROMOTION_REASON = "promotion_reason"
PROMOTION_VERDICT = "promotion_verdict"
PROMOTION_BLOCKED = "promotion_blocked"
OVERRIDDEN_BY = "promotion_overridden_by"
OVERRIDE_REASON = "promotion_override_reason"
OVERRIDDEN_AT = "promotion_overridden_at"
BASE_MODELS = "base_models"

RENAMED_TAGS = {
    "promotion": PROMOTION_REASON,
    "winner": "best_trial",
    "state": "trial_state",
    "reason": "trial_reason",
}
"""Tags of runs and of registered versions, earlier name to today's."""

RENAMED_METRICS = {
    "gain": "improvement",
    "gain_low": "improvement_low",
    "gain_high": "improvement_high",
    "seconds": "trial_seconds",
    "ndcg_at_10_on_the_way": "ndcg_at_10_intermediate",
}
"""Metrics of studies and trials, earlier name to today's."""

RENAMED_METADATA = {"components": BASE_MODELS}
"""Metadata of a logged model, earlier name to today's."""


def current_names(found: Mapping[str, Value], renamed: Mapping[str, str]) -> dict[str, Value]:
    """What was read, under today's names. Where both spellings are there, today's wins.

    Args:
        found: names to values, as the server returned them.
        renamed: earlier names to today's; a name that is not in it stays as it is.
    """
    earlier = {renamed[name]: value for name, value in found.items() if name in renamed}
    return earlier | {name: value for name, value in found.items() if name not in renamed}
