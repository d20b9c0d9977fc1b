"""Writes of lists and of the members of segments, as Arrow.

The SQL names tables and columns as text, which a contract test holds against the API's tables.
"""

import pyarrow as pa
from adbc_driver_postgresql import dbapi

from feature_store import columns as c
from feature_store.list_sources import SegmentRule
from feature_store.schemas import LISTED_ITEMS, SEGMENT_USERS
from feature_store.segments import MeasuredSegment
from feature_store.tenant_writes import fetch_rows, lock_tenant, write_transaction


def replace_lists(url: str, tenant_id: str, source: str, listed: pa.Table) -> None:
    """Replace all lists of a source by these (LISTED_ITEMS). Without any, the tenant's list is stored as empty.

    Raises LookupError where there is no such tenant.
    """
    with write_transaction(url) as cursor:
        lock_tenant(cursor, tenant_id)
        _replace(cursor, tenant_id, source, listed)


def replace_members(url: str, tenant_id: str, rule: SegmentRule, measured: MeasuredSegment) -> bool:
    """Store the members, the size and the list of a segment, unless it was changed or deleted since it was read.

    Users who were erased since their events were exported are left out. Returns whether it was stored.
    Raises LookupError where there is no such tenant.
    """
    with write_transaction(url) as cursor:
        lock_tenant(cursor, tenant_id)
        if not fetch_rows(cursor, _MEASURED, tenant_id, rule.id, rule.updated_at, measured.size):
            return False
        cursor.execute(_STAGED_MEMBERS)
        if measured.users.num_rows:
            _stage(cursor, "staged_members", measured.users.cast(SEGMENT_USERS))
        fetch_rows(cursor, _REMOVE_MEMBERS, tenant_id, rule.id)
        fetch_rows(cursor, _ADD_MEMBERS, tenant_id, rule.id)
        _replace(cursor, tenant_id, f"{c.SEGMENT_LIST}{rule.id}", measured.listed)
        return True


def _replace(cursor: dbapi.Cursor, tenant_id: str, source: str, listed: pa.Table) -> None:
    cursor.execute(_STAGED_ITEMS)
    if listed.num_rows:
        _stage(cursor, "staged_items", listed.cast(LISTED_ITEMS))
    fetch_rows(cursor, "DELETE FROM item_lists WHERE tenant_id = $1 AND source = $2 RETURNING 1", tenant_id, source)
    fetch_rows(cursor, _ADD_LISTS, tenant_id, source)


def _stage(cursor: dbapi.Cursor, table: str, rows: pa.Table) -> None:
    cursor.adbc_ingest(table, rows, mode="append", temporary=True)


_STAGED_MEMBERS = f"""
CREATE TEMP TABLE staged_members ({c.USER_ID} text, {c.INGESTED_AT} timestamptz) ON COMMIT DROP
"""

_STAGED_ITEMS = f"""
CREATE TEMP TABLE staged_items (
    {c.OF_ITEM} text, {c.ITEM_ID} text, {c.RANK} integer, {c.SCORE} float8
) ON COMMIT DROP
"""

# A list of the whole tenant has a row also where it is empty: its time says when the lists were made.
_ADD_LISTS = f"""
WITH written AS (
    INSERT INTO item_lists (tenant_id, source, of_item, item_ids, scores)
    SELECT $1::text, $2::text, {c.OF_ITEM},
        array_agg({c.ITEM_ID} ORDER BY {c.RANK}), array_agg({c.SCORE} ORDER BY {c.RANK})
    FROM staged_items GROUP BY {c.OF_ITEM}
    UNION ALL
    SELECT $1::text, $2::text, '', '{{}}'::text[], '{{}}'::float8[]
    WHERE NOT EXISTS (SELECT FROM staged_items WHERE {c.OF_ITEM} = '')
    RETURNING 1
)
SELECT count(*) FROM written
"""  # noqa: S608 - constants of this code base

_MEASURED = """
UPDATE segments SET size = $4::bigint, measured_at = now()
WHERE tenant_id = $1 AND id = $2::text::uuid AND updated_at = $3::text::timestamptz
RETURNING id::text
"""

_REMOVE_MEMBERS = f"""
WITH removed AS (
    DELETE FROM segment_users AS member
    WHERE member.tenant_id = $1 AND member.segment_id = $2::text::uuid
        AND NOT EXISTS (SELECT FROM staged_members AS staged WHERE staged.{c.USER_ID} = member.user_id)
    RETURNING 1
)
SELECT count(*) FROM removed
"""  # noqa: S608 - constants of this code base

# The lock waits for a running erasure of a user, whose row is then missing. The tombstone tells the user who was erased
# after the export from a later one with the same id, who has none of these events.
_ADD_MEMBERS = f"""
WITH missing AS (
    SELECT users.id FROM users JOIN staged_members AS staged ON staged.{c.USER_ID} = users.id
    WHERE users.tenant_id = $1
        AND NOT EXISTS (
            SELECT FROM segment_users AS member
            WHERE member.tenant_id = $1 AND member.segment_id = $2::text::uuid AND member.user_id = users.id
        )
        AND NOT EXISTS (
            SELECT FROM tombstones
            WHERE tombstones.tenant_id = $1 AND tombstones.user_id = users.id
                AND tombstones.erased_at >= staged.{c.INGESTED_AT}
        )
    FOR KEY SHARE OF users
), written AS (
    INSERT INTO segment_users (tenant_id, segment_id, user_id)
    SELECT $1::text, $2::text::uuid, missing.id FROM missing RETURNING 1
)
SELECT count(*) FROM written
"""  # noqa: S608 - constants of this code base
