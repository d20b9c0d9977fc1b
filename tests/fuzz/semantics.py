"""Operations that may refuse what their schema allows, and why a schema cannot say so.

Cases that are answered so do not count as failures. For all others at least `VALID_SHARE` of an operation's valid
cases are a 2xx or a 404.
"""

VALID_SHARE = 0.8

COMMON = "a password is none of the first that are guessed"
TAKEN = "an address or id is free only once"
RULES = "filters and expressions are languages of their own, and the rules have to fit together"
SEMANTIC: dict[str, tuple[tuple[int, ...], str]] = {
    "POST /api/auth/register": ((400, 409), f"{COMMON}, and {TAKEN}"),
    "POST /auth/v1/signup": ((422,), f"{COMMON}, and {TAKEN}"),
    "POST /auth/v1/token": ((400,), "which members are needed depends on the query, and a refresh token is good once"),
    "PUT /auth/v1/user": ((400, 422), f"a new password differs from the current one, and {TAKEN}"),
    "POST /api/users": ((400, 409), f"{COMMON}, and {TAKEN}"),
    "PUT /api/users/{user_id}": ((400, 409), f"{TAKEN}, who has a password keeps one, and the last admin stays one"),
    "DELETE /api/users/{user_id}": ((409,), "the last active admin stays"),
    "PATCH /api/users/{user_id}/toggle-status": ((409,), "the last active admin stays active"),
    "POST /api/keys": ((409,), "a tenant has at most 20 live keys"),
    "GET /api/audit": ((400,), "a period ends after it begins"),
    "POST /api/items": ((400, 409), f"{TAKEN}, and metadata has bounds on its size and depth"),
    "PUT /api/items/{item_id}": ((400,), "metadata has bounds on its size and depth"),
    "PATCH /api/items/{item_id}": ((400,), "metadata has bounds on its size and depth"),
    "POST /api/v1/interactions": ((400,), "a time lies between 1970 and now"),
    "POST /api/v1/recommend": ((400,), "a filter is a language of its own"),
    "POST /api/v1/similar": ((400,), "a filter is a language of its own"),
    "POST /api/billing/checkout": ((400,), "which plans are for sale is not the schema's"),
    "PUT /api/billing/overage-cap": ((400,), "an amount has at most two decimals"),
    "PUT /api/settings/pipeline": ((400,), "a webhook is on the internet, and its secret is printable ASCII"),
    "POST /api/billing/webhook": ((400,), "only Stripe can sign"),
    "POST /api/exports": ((400, 409), "a period ends after it begins, and a tenant has at most 5 exports that wait"),
    "POST /api/segments": ((400, 409), RULES),
    "PUT /api/segments/{segment_id}": ((400,), RULES),
    "POST /api/scenarios": ((400, 409), f"{RULES}, and {TAKEN}"),
    "PUT /api/scenarios/{scenario_id}": ((400,), RULES),
    "PATCH /api/scenarios/{scenario_id}": ((400,), RULES),
    "POST /api/scenarios/{scenario_id}/preview": ((400,), f"{RULES}, and lists are of users or of items"),
    "GET /api/v1/lists/{source}": ((400,), "a filter is a language of its own, and some lists are of a user or item"),
    "POST /graphql": ((400,), "a document is a language of its own, and names its operations"),
}
"""Statuses and the reason, by operation."""

MISUNDERSTOOD: dict[tuple[str, str], str] = {
    ("/api/items/batch", "AllowHeaderMismatch"): "the path is also that of an item with the id `batch`",
}
"""Findings by path and name that are none, and why."""
