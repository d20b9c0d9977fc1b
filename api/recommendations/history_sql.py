"""SQL that reads a user's view with one statement, and builds the histories that no row holds yet as MessagePack."""

import struct

from feature_store.interaction_types import SEEN_TYPES, TYPE_WEIGHTS
from feature_store.online import NEWEST_FIRST_SQL, OLDEST_FIRST_SQL, newest_events_sql

# A change of the bytes that are built here takes another `feature_store.online.FORMAT`.

# MessagePack in SQL. Texts and arrays have the headers of 16 and 32 bits whatever their length: an id is of at most 256
# characters, which fits the signed 16 bits of int2send.
_ARRAY_HEAD = r"'\xdd'::bytea || int4send(count(*)::integer)"
_ITEM_ID = r"'\xda'::bytea || int2send(octet_length(item_id)::smallint) || convert_to(item_id, 'UTF8')"
_MICROSECONDS = "int8send((date_part('epoch', occurred_at) * 1000000)::bigint)"  # exact: below 2^53
_INT_64, _FLOAT_32 = b"\xd3", b"\xca"


def _bytes(value: bytes) -> str:
    return rf"'\x{value.hex()}'::bytea"


def _by_type(parts: dict[str, bytes]) -> str:
    whens = " ".join(f"WHEN '{name}' THEN {_bytes(part)}" for name, part in parts.items())
    return f"CASE interaction_type {whens} END"


# From an event's type to the head of its timestamp, with the weight of the type or the event's own value between.
_TYPE = {name: bytes([0xA0 + len(name)]) + name.encode() + _FLOAT_32 for name in TYPE_WEIGHTS}
_TYPE_AND_WEIGHT = {name: _TYPE[name] + struct.pack(">f", weight) + _INT_64 for name, weight in TYPE_WEIGHTS.items()}
_EVENT = (
    rf"'\x94'::bytea || {_ITEM_ID} || CASE WHEN value IS NULL THEN {_by_type(_TYPE_AND_WEIGHT)} "
    f"ELSE {_by_type(_TYPE)} || float4send(value) || {_bytes(_INT_64)} END || {_MICROSECONDS}"
)


def _array_of_ids(moment: str) -> str:
    return f"""
        SELECT {_ARRAY_HEAD} || coalesce(string_agg(packed, '' ORDER BY {moment} DESC, item_id COLLATE "C" DESC), '')
        FROM (
            SELECT * FROM items WHERE {moment} IS NOT NULL
            ORDER BY {moment} DESC, item_id COLLATE "C" DESC LIMIT $6::integer
        ) AS newest
    """  # noqa: S608 - a column of `items`


_NEWEST = newest_events_sql("wanted.tenant_id", "wanted.user_id", "$7::integer", "kept.version IS NULL")
_BOUGHT = ", ".join(f"'{name}'" for name in SEEN_TYPES["bought"])

# Runs only where no row was found: each scan has the condition, so that nothing of it is read otherwise.
_BUILT = f"""
    WITH recent AS MATERIALIZED (
        SELECT id, item_id, interaction_type, value, occurred_at
        FROM ({_NEWEST}) AS of_user
        ORDER BY {NEWEST_FIRST_SQL}
        LIMIT $7::integer
    ), items AS MATERIALIZED (
        SELECT item_id, {_ITEM_ID} AS packed, max(occurred_at) AS had,
            max(occurred_at) FILTER (WHERE interaction_type IN ({_BOUGHT})) AS bought
        FROM recent GROUP BY item_id
    )
    SELECT
        (
            SELECT {_ARRAY_HEAD} || coalesce(string_agg({_EVENT}, '' ORDER BY {OLDEST_FIRST_SQL}), '')
            FROM (SELECT * FROM recent LIMIT $5::integer) AS newest
        ) AS events,
        ({_array_of_ids("had")}) AS seen,
        ({_array_of_ids("bought")}) AS bought
    WHERE kept.version IS NULL
"""  # noqa: S608 - this module's constants

# $1 to $3 are arrays with an element for each view: tenants, users, policies on seen items. $4 is the form, and $5 to
# $7 are the bounds on events, seen items and scanned events.
# The arrays are read by sub-selects, which hide their lengths from the planner: it then finds no plan for the very
# values cheaper than the generic one, and does not plan again at every execution.
VIEWS = f"""
SELECT
    catalogue.version,
    coalesce(wanted.exclude_seen, tenant.exclude_seen),
    coalesce(kept.events, built.events),
    coalesce(kept.seen, built.seen),
    coalesce(kept.bought, built.bought),
    CASE WHEN kept.version IS NULL THEN known.history_version END,
    known.xid::text,
    tenant.scenario_edition,
    tenant.holdout_share
FROM unnest(
    (SELECT $1::text[]), (SELECT $2::text[]), (SELECT $3::text[])
) WITH ORDINALITY AS wanted (tenant_id, user_id, exclude_seen, place)
LEFT JOIN catalogues AS catalogue ON catalogue.tenant_id = wanted.tenant_id
LEFT JOIN tenants AS tenant ON tenant.id = wanted.tenant_id
LEFT JOIN users AS known ON known.tenant_id = wanted.tenant_id AND known.id = wanted.user_id
LEFT JOIN user_histories AS kept
    ON kept.tenant_id = wanted.tenant_id AND kept.user_id = wanted.user_id
    AND kept.version = known.history_version AND kept.form = $4::integer
LEFT JOIN LATERAL ({_BUILT}) AS built ON true
ORDER BY wanted.place
"""  # noqa: S608 - this module's constants

# A history is kept while the user is the one that it was built of, at the version that it was built from. The lock
# makes an erasure of the user wait, and delete the row. Where the erasure was first, the user is passed over.
KEEP = """
INSERT INTO user_histories AS kept (tenant_id, user_id, version, form, events, seen, bought)
SELECT built.tenant_id, built.user_id, built.version, %(form)s, built.events, built.seen, built.bought
FROM unnest(
    %(tenants)s::text[], %(users)s::text[], %(incarnations)s::text[], %(versions)s::bigint[],
    %(events)b::bytea[], %(seen)b::bytea[], %(bought)b::bytea[]
) AS built (tenant_id, user_id, incarnation, version, events, seen, bought)
JOIN users ON users.tenant_id = built.tenant_id AND users.id = built.user_id
    AND users.xid = built.incarnation::xid8 AND users.history_version = built.version
ORDER BY built.tenant_id, built.user_id
FOR KEY SHARE OF users SKIP LOCKED
ON CONFLICT (tenant_id, user_id) DO UPDATE
SET version = excluded.version, form = excluded.form, events = excluded.events, seen = excluded.seen,
    bought = excluded.bought
"""
