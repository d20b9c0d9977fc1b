"""Arrow schemas of the tables that cross a boundary: database -> lake -> features, and back to the database."""

import pyarrow as pa

from feature_store import columns as c

UTC_MICROS = pa.timestamp("us", tz="UTC")

LAKE_INTERACTIONS = pa.schema(
    [
        pa.field(c.INTERACTION_ID, pa.string(), nullable=False),
        pa.field(c.USER_ID, pa.string(), nullable=False),
        pa.field(c.ITEM_ID, pa.string(), nullable=False),
        pa.field(c.INTERACTION_TYPE, pa.string(), nullable=False),
        pa.field(c.VALUE, pa.float32()),
        pa.field(c.TIMESTAMP, UTC_MICROS, nullable=False),
        pa.field(c.INGESTED_AT, UTC_MICROS, nullable=False),
        pa.field(c.RECOMMENDATION_ID, pa.string()),
    ]
)
"""One row per recorded interaction, with the values that the API accepted."""

TOMBSTONES = pa.schema(
    [
        pa.field(c.USER_ID, pa.string(), nullable=False),
        pa.field(c.ERASED_AT, UTC_MICROS, nullable=False),
    ]
)
"""Erased users, each once. Their rows that were ingested up to `erased_at` are deleted; later ones are those of a new
user with the same id."""

LAKE_ITEMS = pa.schema(
    [
        pa.field(c.ITEM_ID, pa.string(), nullable=False),
        pa.field(c.METADATA, pa.string(), nullable=False),  # JSON object
        pa.field(c.IS_ACTIVE, pa.bool_(), nullable=False),
        pa.field(c.CREATED_AT, UTC_MICROS, nullable=False),
    ]
)
"""The catalogue at one version: every item that is not deleted."""

SNAPSHOT_INTERACTIONS = pa.schema(
    [
        pa.field(c.USER, pa.int32(), nullable=False),
        pa.field(c.ITEM, pa.int32(), nullable=False),
        pa.field(c.TYPE, pa.int8(), nullable=False),
        pa.field(c.WEIGHT, pa.float32(), nullable=False),
        pa.field(c.TIMESTAMP, pa.int64(), nullable=False),  # microseconds since the epoch
    ]
)
"""Training events, sorted by (user, timestamp, item). Users and items are dense positions."""

SNAPSHOT_ITEMS = pa.schema(
    [
        pa.field(c.ITEM, pa.int32(), nullable=False),
        pa.field(c.ITEM_ID, pa.string(), nullable=False),
        pa.field(c.METADATA, pa.string(), nullable=False),
        pa.field(c.IS_ACTIVE, pa.bool_(), nullable=False),
    ]
)
"""The item table of a snapshot: row i is position i.

An item keeps its position in every later snapshot; a deleted one keeps its row, inactive and without metadata.
"""

AUDIENCE = pa.schema(
    [
        pa.field(c.USER_ID, pa.string(), nullable=False),
        pa.field(c.CREATED_AT, UTC_MICROS, nullable=False),
    ]
)
"""Users to generate recommendations for. `created_at` tells a user from an erased one with the same id."""

RECENT_EVENTS = pa.schema(
    [
        pa.field(c.USER, pa.int32(), nullable=False),  # index in the list of users of the query
        pa.field(c.ITEM_ID, pa.string(), nullable=False),
        pa.field(c.TYPE, pa.int8(), nullable=False),
        pa.field(c.WEIGHT, pa.float32(), nullable=False),
        pa.field(c.TIMESTAMP, pa.int64(), nullable=False),  # microseconds since the epoch
    ]
)
"""The newest events of some users, sorted by user and then newest first."""

CATALOGUE_CHANGES = pa.schema(
    [
        pa.field(c.ITEM_ID, pa.string(), nullable=False),
        pa.field(c.CATALOGUE_VERSION, pa.int64(), nullable=False),
        pa.field(c.IS_ACTIVE, pa.bool_(), nullable=False),
        pa.field(c.METADATA, pa.string()),  # JSON object; null where the item is deleted
    ]
)
"""Items that changed after some version of the catalogue, in their present state."""

RECOMMENDATIONS = pa.schema(
    [
        pa.field(c.USER_ID, pa.string(), nullable=False),
        pa.field(c.CREATED_AT, UTC_MICROS, nullable=False),  # of the user, as in AUDIENCE
        pa.field(c.ITEM_ID, pa.string(), nullable=False),
        pa.field(c.RANK, pa.int16(), nullable=False),  # from 1
        pa.field(c.SCORE, pa.float64(), nullable=False),
        pa.field(c.REASON, pa.string(), nullable=False),
    ]
)
"""Generated recommendations that are written to the database."""

GENERATED_FILES = pa.schema(
    [
        *RECOMMENDATIONS,
        pa.field(c.ALGORITHM, pa.string(), nullable=False),
        pa.field(c.RELEASE, pa.string(), nullable=False),
    ]
)
"""Generated recommendations that are written to files."""

EVALUATION_EVENTS = pa.schema([*RECENT_EVENTS, pa.field(c.IS_TARGET, pa.bool_(), nullable=False)])
"""Events of evaluated users, sorted by user and then oldest first.

`is_target` is false for the events before a given time, which make the user's history, and true for those after it,
which a model should rank high.
"""

ONLINE_METRICS = pa.schema(
    [
        pa.field(c.RELEASE, pa.string(), nullable=False),  # empty for the fallback, which no model served
        pa.field(c.ALGORITHM, pa.string(), nullable=False),
        pa.field(c.IMPRESSIONS, pa.int64(), nullable=False),
        pa.field(c.ITEMS_SHOWN, pa.int64(), nullable=False),
        pa.field(c.ATTRIBUTED_IMPRESSIONS, pa.int64(), nullable=False),  # with an interaction
        pa.field(c.ATTRIBUTED_INTERACTIONS, pa.int64(), nullable=False),
    ]
)
"""Impressions of each release and algorithm, and how many interactions are attributed to them."""

LISTED_ITEMS = pa.schema(
    [
        pa.field(c.OF_ITEM, pa.string(), nullable=False),  # empty for a list of the whole tenant
        pa.field(c.ITEM_ID, pa.string(), nullable=False),
        pa.field(c.RANK, pa.int32(), nullable=False),  # from 1
        pa.field(c.SCORE, pa.float64(), nullable=False),  # in [0, 1], not increasing down a list
    ]
)
"""Lists of items: one of the tenant, or one for each item."""

SEGMENT_USERS = pa.schema(
    [
        pa.field(c.USER_ID, pa.string(), nullable=False),
        pa.field(c.INGESTED_AT, UTC_MICROS, nullable=False),  # the oldest event that makes the user a member
    ]
)
"""Users of a segment. `ingested_at` tells a user from an erased one with the same id."""
