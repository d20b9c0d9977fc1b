"""The names of columns, in one place. Files, queries and frames spell them through here."""

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
SCORE = "score"
ALGORITHM = "algorithm"
REASON = "reason"
RELEASE = "release"

CHOSEN = "chosen"
ANSWERS = "answers"
ANSWERS_FOLLOWED = "answers_followed"
SHOWN = "shown"
INTERACTIONS = "interactions"

# Inside a feature snapshot users and items are positions, so that no id of a person reaches a model.
USER = "user"
ITEM = "item"
TYPE = "type"
WEIGHT = "weight"

INTERACTION_TYPES = ("view", "click", "like", "purchase")
"""Order matters: a type's code in arrays is its index here, and intent grows with it."""

USER_SEGMENTS = ("all", "active", "new")
"""Whom a generation is for: every active account, those seen in the last `ACTIVE_DAYS`, or those hardly known yet."""

ACTIVE_DAYS = 30
NEW_BELOW = 5
"""A user with fewer interactions than this is new."""

MICROS_PER_DAY = 86_400_000_000
"""Microseconds in a day: timestamps are microseconds since the epoch, UTC."""
