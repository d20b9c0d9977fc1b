"""What a fit of the hybrid family costs, without the fits of its base models."""

from collections.abc import Mapping

from training.models.hybrid.config import HybridConfig
from training.models.workload import NS, DataSizes, Workload

_SCALE_SCORINGS, _QUERY_SCORINGS, _EVIDENCE_SCORINGS = 2, 4, 2
"""How often base models score the histories that scales are measured on, the queries, and those that evidence is
checked on."""
_SCALE_ENTRY, _QUERY_ENTRY, _QUERY_ITEM = 30 * NS, 80 * NS, 200 * NS
"""Seconds per score to measure its spread, per score to choose candidates, and per item to size the cold-item boost."""
_CANDIDATE = 200 * NS
"""Seconds of one component score of a candidate, for each ensemble that is tried: one a weight of popularity, and one a
base model that is left out."""


def hybrid_workload(
    sizes: DataSizes, config: HybridConfig, refit: bool, base_models: Mapping[str, Workload]
) -> Workload:
    """The cost of learning the weights on queries; of a refit, that of measuring the scales of refitted base models."""
    count = len(base_models) + 1
    scoring = sum(each.scoring_seconds for each in base_models.values())
    scaled = min(config.scale_users, sizes.users)
    scales = Workload(
        count,
        scaled * (_SCALE_SCORINGS * scoring + _SCALE_ENTRY * count * sizes.items),
        peak_bytes=20.0 * scaled * sizes.items,
    )
    if refit:
        return scales
    queries = min(config.max_queries, config.queries_per_user * sizes.validation_users)
    candidates = queries * min(sizes.items, count * config.ranker.candidates)
    learning = Workload(
        0,
        queries * (_QUERY_SCORINGS * scoring + (_QUERY_ENTRY * count + _QUERY_ITEM) * sizes.items)
        + config.evidence_users * _EVIDENCE_SCORINGS * scoring
        + (len(config.ranker.popularity_weights) + max(0, count - 3)) * candidates * count * _CANDIDATE,
        peak_bytes=64.0 * sizes.items * (4 * count + 30) + candidates * (90.0 + 16 * count),
    )
    return scales + learning
