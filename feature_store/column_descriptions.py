"""What each column of the lake, of snapshots and of stored recommendations holds, for people who read their schemas."""

from feature_store import columns as c

DESCRIPTIONS = {
    c.INTERACTION_ID: "Id of the interaction; each is in the lake once.",
    c.USER_ID: "The tenant's id of the user.",
    c.ITEM_ID: "The tenant's id of the item.",
    c.INTERACTION_TYPE: f"One of {', '.join(c.INTERACTION_TYPES)}, by growing intent.",
    c.VALUE: "Strength in [0, 1], where the tenant gave one.",
    c.TIMESTAMP: "When it happened, UTC; microseconds since the epoch in snapshots.",
    c.INGESTED_AT: "When it was recorded, UTC. Folders of the lake are days of it.",
    c.RECOMMENDATION_ID: "The recommendation that the interaction followed from, if any.",
    c.METADATA: "The item's metadata as a JSON object.",
    c.IS_ACTIVE: "Whether the item may be recommended.",
    c.CREATED_AT: "When the item or user was created, UTC.",
    c.USER: "Position of the user in this snapshot; no id of a user reaches a model.",
    c.ITEM: "Position of the item, the same in every snapshot of the tenant.",
    c.TYPE: f"Code of the type: the place in {', '.join(c.INTERACTION_TYPES)}.",
    c.WEIGHT: "How much the event counts, by its type and value.",
    c.RANK: "Place in the user's list, from 1.",
    c.SCORE: "Score in [0, 1] within the release.",
    c.REASON: "The sentence that explains the recommendation.",
}
