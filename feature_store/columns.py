"""Column names and the values that columns share. Files, queries and data frames take their names from here."""

TENANT_ID = "tenant_id"
USER_ID = "user_id"
ITEM_ID = "item_id"
INTERACTION_ID = "interaction_id"
INTERACTION_TYPE = "interaction_type"
VALUE = "value"
TIMESTAMP = "timestamp"
INGESTED_AT = "ingested_at"
RECOMMENDATION_ID = "recommendation_id"
ERASED_AT = "erased_at"

METADATA = "metadata"
IS_ACTIVE = "is_active"
CREATED_AT = "created_at"
CATALOGUE_VERSION = "catalogue_version"

RANK = "rank"
OF_ITEM = "of_item"
SCORE = "score"
ALGORITHM = "algorithm"
REASON = "reason"
RELEASE = "release"

# Online metrics. An impression is one response of `recommend` and the items it showed.
IMPRESSIONS = "impressions"
ITEMS_SHOWN = "items_shown"
ATTRIBUTED_IMPRESSIONS = "attributed_impressions"
ATTRIBUTED_INTERACTIONS = "attributed_interactions"

# A feature snapshot holds users and items as positions, so that no person's id reaches a model.
USER = "user"
ITEM = "item"
TYPE = "type"
WEIGHT = "weight"
IS_TARGET = "is_target"

INTERACTION_TYPES = ("view", "click", "like", "purchase")
"""By growing intent. The order is part of stored data: a type's code in arrays is its index here."""

USER_SEGMENTS = ("all", "active", "new")
"""Users that a generation is for: every enabled user, those active within `ACTIVE_DAYS`, or those with few events."""

TRENDING = "trending"
BOUGHT_TOGETHER = "bought-together"
SEGMENT_LIST = "segment:"
"""Names of lists of items that the pipeline makes. A segment's list is named so, with the segment's id after it."""

ACTIVE_DAYS = 30
NEW_BELOW = 5
"""A user with fewer interactions than this belongs to the segment `new`."""

MAX_ID_LENGTH = 256
"""Characters of the longest id of a user or an item."""

CLOCK_TOLERANCE = "INTERVAL 5 MINUTE"
"""SQL: how far ahead of ours a clock may be that gives an event its time."""

MICROS_PER_DAY = 86_400_000_000
"""Microseconds in a day: timestamps are microseconds since the epoch, UTC."""
