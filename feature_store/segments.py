"""Which users or items are in a segment, from the lake."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import pyarrow as pa

from feature_store import columns as c
from feature_store.item_lists import chosen_by_members, popular_members
from feature_store.lake_events import LakeEvents
from feature_store.list_sources import SegmentRule
from feature_store.schemas import LISTED_ITEMS, SEGMENT_USERS

MAX_MEMBERS = 100_000
"""Users of a segment that are stored, those with the newest events. Its size counts all."""

_MEMBERS = f"""
CREATE OR REPLACE TEMP TABLE members AS
SELECT {{member}}, min({c.INGESTED_AT}) AS {c.INGESTED_AT}, max({c.TIMESTAMP}) AS newest
FROM events {{matched}}
WHERE list_contains(?, {c.INTERACTION_TYPE})
    AND {c.TIMESTAMP} > (SELECT max({c.TIMESTAMP}) FROM events) - to_days(?)
GROUP BY {{member}} HAVING count(*) >= ?
"""  # noqa: S608 - constants of this code base
_STORED = f"SELECT {c.USER_ID}, {c.INGESTED_AT} FROM members ORDER BY newest DESC, {c.USER_ID} LIMIT {MAX_MEMBERS}"  # noqa: S608
_ITEMS = f"CREATE OR REPLACE TEMP TABLE members AS SELECT {c.ITEM} FROM catalogue {{matched}}"  # noqa: S608


@dataclass(frozen=True)
class MeasuredSegment:
    """A segment's members at the tenant's newest event."""

    size: int
    users: pa.Table  # SEGMENT_USERS; empty for a segment of items
    listed: pa.Table  # LISTED_ITEMS: what its users choose, or its items


def measure_segment(events: LakeEvents, rule: SegmentRule, matched: Sequence[int] | pa.Array | None) -> MeasuredSegment:
    """Find the members of a segment.

    A user or an item is a member who has at least `rule.at_least` events of the types within the days before the
    tenant's newest event, with items that the filter matches. Without a behaviour all active items that the filter
    matches are members.

    matched: the items of `catalogue` that the filter matches; None without a filter.
    """
    of_users = rule.kind == "users"
    member = c.USER_ID if of_users else c.ITEM
    semi_join = "" if matched is None else f"SEMI JOIN matched USING ({c.ITEM})"
    if not of_users:
        semi_join += f" SEMI JOIN (FROM catalogue WHERE {c.IS_ACTIVE}) USING ({c.ITEM})"
    with nullcontext() if matched is None else events.with_items("matched", matched):
        if rule.types:
            statement = _MEMBERS.format(member=member, matched=semi_join)
            events.run(statement, [list(rule.types), rule.days, rule.at_least])
        else:
            events.run(_ITEMS.format(matched=semi_join))
    size = int(events.value("SELECT count(*) FROM members"))
    if of_users:
        return MeasuredSegment(size, events.table(_STORED).cast(SEGMENT_USERS), chosen_by_members(events))
    # A segment of items by a filter alone has no stored list: requests apply the filter to all items.
    listed = popular_members(events) if rule.types else LISTED_ITEMS.empty_table()
    return MeasuredSegment(size, SEGMENT_USERS.empty_table(), listed)
