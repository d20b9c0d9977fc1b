"""Arrow schemas of the tables that cross a boundary: database -> lake -> features."""

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
"""One row per recorded interaction, as the API accepted it."""

TOMBSTONES = pa.schema(
    [
        pa.field(c.USER_ID, pa.string(), nullable=False),
        pa.field(c.ERASED_AT, UTC_MICROS, nullable=False),
    ]
)
"""Users whose rows go, those that came up to `erased_at`. Each user once."""

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
"""Training events, sorted by (user, timestamp, item); users and items are dense positions."""

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
"""Users to recommend to. The moment of creation tells a user from an erased one whose id came back."""

RECENT_EVENTS = pa.schema(
    [
        pa.field(c.USER, pa.int32(), nullable=False),  # place in the list of users that was asked about
        pa.field(c.ITEM_ID, pa.string(), nullable=False),
        pa.field(c.TYPE, pa.int8(), nullable=False),
        pa.field(c.WEIGHT, pa.float32(), nullable=False),
        pa.field(c.TIMESTAMP, pa.int64(), nullable=False),  # microseconds since the epoch
    ]
)
"""The newest events of some users, by user and then newest first."""

CATALOGUE_CHANGES = pa.schema(
    [
        pa.field(c.ITEM_ID, pa.string(), nullable=False),
        pa.field(c.CATALOGUE_VERSION, pa.int64(), nullable=False),
        pa.field(c.IS_ACTIVE, pa.bool_(), nullable=False),
        pa.field(c.METADATA, pa.string()),  # JSON object; null where the item is gone
    ]
)
"""Items that changed after some version of the catalogue, in their state now."""

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
"""Generated recommendations on their way into the database."""

QUESTIONS = pa.schema([*RECENT_EVENTS, pa.field(c.CHOSEN, pa.bool_(), nullable=False)])
"""What users had done before a moment, and what they chose after it, by user and then oldest first."""

ONLINE_METRICS = pa.schema(
    [
        pa.field(c.RELEASE, pa.string(), nullable=False),  # empty where no model answered
        pa.field(c.ALGORITHM, pa.string(), nullable=False),
        pa.field(c.ANSWERS, pa.int64(), nullable=False),
        pa.field(c.SHOWN, pa.int64(), nullable=False),  # items in the answers
        pa.field(c.ANSWERS_FOLLOWED, pa.int64(), nullable=False),  # by at least one interaction with an item of theirs
        pa.field(c.INTERACTIONS, pa.int64(), nullable=False),  # that followed from the answers
    ]
)
"""How the answers of each release and algorithm were followed."""
