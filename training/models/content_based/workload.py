"""What a fit of the content-based family costs."""

from typing import TYPE_CHECKING

from training.models.content_based.encoder import EncoderConfig
from training.models.held_out import QUERY_CELLS
from training.models.workload import LOOKUP, PASS, PRODUCT, PYTHON, SPARSE_DENSE, DataSizes, Workload, svd_workload

if TYPE_CHECKING:
    from training.models.content_based.config import ContentBasedConfig

_WORDS = 5
"""Words and labels of one entry of metadata: a guess, since the forecast does not read them."""
_LABEL_STEPS = 25
"""Steps of the interpreter that a mixture over labels takes for one entry of metadata, beyond reading it."""
_READING_STEPS = 15
"""The same of the encoder, which reads each entry twice."""
_CANDIDATES = 30
"""Settings that a choice tries: a guess, since the second round knows some of them."""
_SCORE_PASSES = 6
"""How often a choice reads and writes the scores of a query."""


def content_based_workload(sizes: DataSizes, config: "ContentBasedConfig", refit: bool = False) -> Workload:
    """The cost of one fit: the encoder, and the bilinear map or the label mixture. A refit chooses no settings."""
    encoder, width = encoder_workload(sizes, config.encoder), content_width(sizes, config.encoder) + 1
    mapped = Workload(
        2 * sizes.items * width + width**2 + sizes.items,
        2 * (2 * sizes.pairs * width * SPARSE_DENSE + (2 * sizes.items + 2 * sizes.users) * width**2 * PRODUCT)
        + sizes.history_events * LOOKUP,
        24.0 * (sizes.users + sizes.items) * width,
        scoring_seconds=(sizes.history_length + sizes.items) * width * PRODUCT,
    )
    if config.mixture is None and (refit or not config.held_out_users):
        return encoder + mapped
    if config.mixture is None:
        queries = min(sizes.users, config.held_out_users, QUERY_CELLS // max(1, sizes.items))
        scored = queries * (mapped.scoring_seconds + _SCORE_PASSES * sizes.items * PASS) + 2 * width**3 * PRODUCT
        return encoder + Workload(0, _CANDIDATES * scored) + mapped + mapped
    return encoder + mapped + Workload(0, sizes.metadata_values * _LABEL_STEPS * PYTHON)


def encoder_workload(sizes: DataSizes, config: EncoderConfig) -> Workload:
    """The cost of a fit of the encoder and of the vectors of the whole catalogue."""
    entries = _WORDS * sizes.metadata_values
    return Workload(0, sizes.metadata_values * _READING_STEPS * PYTHON) + svd_workload(
        sizes.items, min(entries, config.max_words), entries, config.text_dimensions
    )


def content_width(sizes: DataSizes, config: EncoderConfig) -> int:
    """The largest width of the content vectors; they are narrower where the catalogue has fewer words and labels."""
    return min(config.text_dimensions, sizes.items) + min(config.label_dimensions, sizes.items)
