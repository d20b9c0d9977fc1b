"""What the assets of lists do, without Dagster."""

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store import columns as c
from feature_store import item_lists, list_sinks
from feature_store.lake import TenantLake
from feature_store.lake_events import LakeEvents, open_lake_events
from feature_store.list_sources import SegmentRule, segment_rules
from feature_store.segments import measure_segment
from pipelines.resources import Installation
from serving.contracts.filters import parse_filter
from serving.filtering import MetadataColumns


@dataclass(frozen=True)
class ListSizes:
    """What was stored of the lists of one tenant."""

    trending: int
    rises: list[tuple[str, float]]  # the first items of `trending` with their scores
    items_with_neighbours: int
    basket_type: str  # the type of interaction that made baskets


@dataclass(frozen=True)
class SegmentSize:
    """A segment and its size; `stored` is false where it was changed or deleted while it was measured."""

    rule: SegmentRule
    size: int
    stored: bool


def make_lists(installation: Installation, tenant_id: str, shown: int = 10) -> ListSizes:
    """Make `trending` and `bought-together` of a tenant's lake, and store them.

    shown: how many items of `trending` are returned.
    Raises FileNotFoundError where the lake has no catalogue, LookupError where there is no such tenant.
    """
    url = installation.database_url()
    with open_lake_events(TenantLake(installation.paths.lake, tenant_id)) as events:
        rising = item_lists.trending(events)
        kind = item_lists.basket_type(events)
        together = item_lists.bought_together(events, kind)
    list_sinks.replace_lists(url, tenant_id, c.BOUGHT_TOGETHER, together)
    list_sinks.replace_lists(url, tenant_id, c.TRENDING, rising)  # the last, since its time says when lists were made
    first = rising.slice(0, shown)
    return ListSizes(
        trending=rising.num_rows,
        rises=list(zip(first[c.ITEM_ID].to_pylist(), first[c.SCORE].to_pylist(), strict=True)),
        items_with_neighbours=len(together[c.OF_ITEM].unique()),
        basket_type=kind,
    )


def measure_segments(installation: Installation, tenant_id: str) -> list[SegmentSize]:
    """Find the members of all segments of a tenant in its lake, and store them. Returns their sizes, oldest first.

    Raises FileNotFoundError where the lake has no catalogue, LookupError where there is no such tenant.
    """
    url = installation.database_url()
    rules = segment_rules(url, tenant_id)
    if not rules:
        return []
    sizes = []
    with open_lake_events(TenantLake(installation.paths.lake, tenant_id)) as events:
        matching = _ItemFilters(events)
        for rule in rules:
            measured = measure_segment(events, rule, None if rule.filter is None else matching.items(rule.filter))
            stored = list_sinks.replace_members(url, tenant_id, rule, measured)
            sizes.append(SegmentSize(rule, measured.size, stored))
    return sizes


class _ItemFilters:
    """Evaluates filters over the catalogue, whose metadata is read when the first filter needs it."""

    def __init__(self, events: LakeEvents) -> None:
        self._events = events
        self._columns: MetadataColumns | None = None

    def items(self, document: object) -> npt.NDArray[np.int32]:
        """The items that a filter matches, int32 [n], as `LakeEvents` numbers them."""
        if self._columns is None:
            texts = self._events.table(f"SELECT {c.METADATA} FROM catalogue ORDER BY {c.ITEM}")[c.METADATA]  # noqa: S608
            self._columns = MetadataColumns([json.loads(text) for text in texts.to_pylist()])
        return np.flatnonzero(self._columns.mask(parse_filter(document))).astype(np.int32)
