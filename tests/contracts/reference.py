"""The API reference as one table, route by route, written from the reference and not from the code.

Requests and answers are the reference's own examples. In them `item-uuid`, `user-uuid`, `rec-uuid` and the like stand
for ids; a test that sends a request puts real ones there.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Credential = Literal["public", "key", "user", "admin"]

NOW = "2025-01-15T10:30:00Z"
USER = {
    "id": "user-uuid",
    "email": "user@example.com",
    "name": "John Doe",
    "role": "user",
    "isActive": True,
    "createdAt": "2025-01-01T00:00:00Z",
    "lastActiveAt": "2025-01-15T10:00:00Z",
}
LOGGED_IN = {name: value for name, value in USER.items() if name != "lastActiveAt"}
NEW_USER = {"email": "user@example.com", "name": "John Doe", "role": "user", "isActive": True}
METADATA = {"title": "Wireless Headphones Pro", "category": "Electronics", "price": 149.99}
ITEM = {
    "id": "item-uuid",
    "tenantId": "tenant-uuid",
    "metadata": METADATA | {"rating": 4.8},
    "isActive": True,
    "createdAt": "2025-01-01T00:00:00Z",
    "updatedAt": "2025-01-15T10:30:00Z",
}
RECOMMENDATION = {
    "id": "rec-uuid",
    "userId": "user-uuid",
    "itemId": "item-uuid",
    "score": 0.92,
    "reason": "Based on your interaction history",
    "createdAt": NOW,
    "metadata": METADATA,
}


def page_of(row: Any) -> dict[str, Any]:
    return {"data": [row], "total": 250, "page": 1, "pageSize": 20}


PLAN = {
    "id": "plan-starter",
    "name": "Starter",
    "monthlyPrice": 49,
    "annualPrice": 470,
    "requestLimit": 10000,
    "itemLimit": 1000,
    "userLimit": 500,
}
SUBSCRIPTION = {
    "planId": "plan-growth",
    "status": "active",
    "interval": "monthly",
    "currentPeriodStart": "2025-01-01T00:00:00Z",
    "currentPeriodEnd": "2025-02-01T00:00:00Z",
    "cancelAtPeriodEnd": False,
}
INVOICE = {
    "id": "in_1",
    "number": "ABC-0001",
    "status": "paid",
    "amountDue": 149.0,
    "amountPaid": 149.0,
    "currency": "usd",
    "createdAt": NOW,
    "hostedUrl": "https://invoice.stripe.com/i/...",
}
"""Subscription and invoice as API-DECISIONS has them: the reference gives no example."""


@dataclass(frozen=True)
class Row:
    """One route."""

    method: str
    path: str
    credential: Credential
    status: int
    answer: Any = None  # None: no body, or a text
    text: str | None = None
    body: Any = None
    query: dict[str, Any] = field(default_factory=dict)
    adds: frozenset[str] = frozenset()  # members of objects that API-DECISIONS adds
    invalid: tuple[Any, ...] = ()  # bodies, or queries of routes without one, that are 400
    missing: dict[str, str] | None = None  # members of the body to change so that it names nothing: 404

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


ROWS = (
    Row("GET", "/health", "public", 200, text="Healthy"),
    Row(
        "POST",
        "/api/auth/login",
        "public",
        200,
        {"token": "eyJhbGciOiJIUzI1NiIs...", "user": LOGGED_IN},
        body={"email": "user@example.com", "password": "secure_password"},
        invalid=({}, {"email": "user@example.com"}, {"email": 1, "password": "x"}),
    ),
    Row(
        "POST",
        "/api/auth/register",
        "public",
        201,
        USER,
        body={"email": "newuser@example.com", "name": "Jane Doe", "password": "secure_password"},
        invalid=({}, {"email": "none", "name": "Jane", "password": "secure_password"}),
    ),
    # Items
    Row(
        "GET",
        "/api/items",
        "key",
        200,
        page_of(ITEM),
        query={"page": 1, "pageSize": 20, "search": "headphones"},
        invalid=({"page": 0}, {"pageSize": 101}, {"page": "one"}),
    ),
    Row("GET", "/api/items/{item-uuid}", "key", 200, ITEM),
    # Recommendations (core engine)
    Row(
        "POST",
        "/api/v1/recommend",
        "key",
        200,
        [
            {
                "itemId": "item-uuid",
                "score": 0.94,
                "algorithm": "hybrid",
                "explanation": "Based on your interaction history",
            },
            {
                "itemId": "item-uuid-2",
                "score": 0.87,
                "algorithm": "collaborative",
                "explanation": "Users similar to you also liked this",
            },
        ],
        body={"userId": "user-abc", "count": 10, "algorithm": "hybrid"},
        adds=frozenset({"evidence"}),
        invalid=(
            {"count": 10},
            {"userId": "user-abc"},
            {"userId": "user-abc", "count": 101},
            {"userId": "user-abc", "count": 0},
            {"userId": "user-abc", "count": 10, "algorithm": "magic"},
        ),
    ),
    Row(
        "POST",
        "/api/v1/similar",
        "key",
        200,
        [{"itemId": "similar-item-uuid", "score": 0.91}],
        body={"itemId": "item-uuid", "count": 5},
        invalid=({"count": 5}, {"itemId": "item-uuid"}, {"itemId": "item-uuid", "count": "five"}),
        missing={"itemId": "no-such-item"},
    ),
    Row(
        "POST",
        "/api/v1/interactions",
        "key",
        201,
        {"success": True, "interactionId": "interaction-uuid", "timestamp": NOW},
        body={"userId": "user-abc", "itemId": "item-uuid", "interactionType": "purchase", "value": 1.0},
        invalid=(
            {"userId": "user-abc", "itemId": "item-uuid"},
            {"userId": "user-abc", "itemId": "item-uuid", "interactionType": "stare"},
            {"userId": "user-abc", "itemId": "item-uuid", "interactionType": "view", "value": 1.1},
            {"userId": "user-abc", "itemId": "item-uuid", "interactionType": "view", "value": -0.1},
        ),
        missing={"itemId": "no-such-item"},
    ),
    # Recommendations (admin management)
    Row(
        "GET",
        "/api/recommendations",
        "admin",
        200,
        page_of(RECOMMENDATION),
        query={"page": 1, "pageSize": 20, "userId": "user-uuid", "algorithm": "hybrid"},
        adds=frozenset({"algorithm"}),
        invalid=({"page": 0}, {"pageSize": 101}, {"algorithm": "magic"}),
    ),
    Row("GET", "/api/recommendations/my", "user", 200, page_of(RECOMMENDATION)),
    Row(
        "GET",
        "/api/recommendations/{rec-uuid}",
        "user",
        200,
        RECOMMENDATION,
        adds=frozenset({"algorithm"}),
    ),
    Row("DELETE", "/api/recommendations/{rec-uuid-2}", "admin", 204),
    Row(
        "POST",
        "/api/recommendations/generate",
        "admin",
        202,
        {"jobId": "gen-job-uuid", "status": "processing", "estimatedCompletionMs": 5000},
        body={"algorithm": "hybrid", "userSegment": "all", "count": 10},
        invalid=({"algorithm": "magic"}, {"userSegment": "everybody"}, {"count": 0}),
    ),
    # Users (admin)
    Row(
        "GET",
        "/api/users",
        "admin",
        200,
        page_of(USER),
        query={"page": 1, "pageSize": 20, "search": "John"},
        invalid=({"page": 0}, {"pageSize": 0}),
    ),
    Row("GET", "/api/users/{user-uuid}", "user", 200, USER),
    Row(
        "POST",
        "/api/users",
        "admin",
        201,
        USER,
        body=NEW_USER,
        invalid=({}, NEW_USER | {"role": "king"}, NEW_USER | {"isActive": "yes"}, NEW_USER | {"email": "none"}),
    ),
    Row(
        "PUT",
        "/api/users/{user-uuid}",
        "admin",
        200,
        USER,
        body=NEW_USER,
        invalid=(NEW_USER | {"role": "king"},),
    ),
    Row("DELETE", "/api/users/{user-uuid-2}", "admin", 204),
    Row("PATCH", "/api/users/{user-uuid-3}/toggle-status", "admin", 200, USER),
    # Analytics
    Row(
        "GET",
        "/api/analytics/stats",
        "admin",
        200,
        {
            "totalUsers": 1250,
            "totalItems": 3400,
            "totalRecommendations": 45000,
            "totalInteractions": 120000,
            "activeModels": 8,
            "dailyActiveUsers": 340,
            "avgAccuracy": 0.87,
        },
    ),
    Row(
        "GET",
        "/api/analytics/data",
        "admin",
        200,
        [{"date": "2025-01-15", "totalRecommendations": 520, "activeUsers": 180, "accuracy": 0.88}],
        query={"period": "30d"},
        invalid=({"period": "8d"}, {"period": ""}),
    ),
    Row("GET", "/api/billing/plans", "public", 200, [PLAN]),
    Row("GET", "/api/billing/current", "user", 200, SUBSCRIPTION),
    Row(
        "GET",
        "/api/billing/usage",
        "user",
        200,
        {
            "requestsUsed": 45000,
            "requestLimit": 100000,
            "percentUsed": 45.0,
            "overageUnits": 0,
            "overageAmount": 0.0,
            "overageBudgetCap": 500,
            "budgetExceeded": False,
            "itemsUsed": 2340,
            "itemsLimit": 10000,
            "usersUsed": 850,
            "usersLimit": 5000,
            "lastRequestAt": "2025-01-15T10:30:45Z",
        },
    ),
    Row(
        "POST",
        "/api/billing/checkout",
        "admin",
        200,
        {"checkoutUrl": "https://checkout.stripe.com/pay/cs_..."},
        body={"planId": "plan-growth", "interval": "monthly"},
        invalid=({}, {"planId": "plan-growth"}, {"planId": "free", "interval": "monthly"}, {"interval": "weekly"}),
    ),
    Row("POST", "/api/billing/portal", "admin", 200, {"portalUrl": "https://billing.stripe.com/session/..."}),
    Row("GET", "/api/billing/invoices", "admin", 200, [INVOICE]),
    Row(
        "PUT",
        "/api/billing/overage-cap",
        "admin",
        200,
        {"overageBudgetCap": 250.0, "budgetExceeded": False},
        body={"capAmount": 250.00},
        invalid=({}, {"capAmount": -1}, {"capAmount": 0.001}, {"capAmount": "250"}, {"capAmount": None}),
    ),
)

GOTRUE = {
    "path": "/auth/v1/token",
    "query": {"grant_type": "password"},
    "body": {"email": "admin@tenant.com", "password": "password"},
}
"""How a JWT is obtained; its answer is GoTrue's."""

LIMITS = {"key": 1_000, "public": 60, "admin": 200}
"""Requests a minute."""

PROBLEM = {
    "type": "https://tools.ietf.org/html/rfc9110#section-15.5.5",
    "title": "Unauthorized",
    "status": 401,
    "detail": "API key is missing or invalid",
    "traceId": "00-abc123-def456-00",
}

GRAPHQL = (
    (
        "query GetRecommendations($userId: String!, $count: Int!, $algorithm: String) {\n"
        "getRecommendations(userId: $userId, count: $count, algorithm: $algorithm) {\n"
        "itemId\nscore\nalgorithm\nexplanation\n}\n}",
        {"userId": "user-abc", "count": 10, "algorithm": "hybrid"},
        {
            "getRecommendations": [
                {"itemId": "item-uuid", "score": 0.94, "algorithm": "hybrid", "explanation": "Based on ..."}
            ]
        },
        "key",
    ),
    (
        "query GetSimilarItems($itemId: String!, $count: Int!) {\n"
        "getSimilarItems(itemId: $itemId, count: $count) {\nitemId\nscore\n}\n}",
        {"itemId": "item-uuid", "count": 5},
        {"getSimilarItems": [{"itemId": "similar-item-uuid", "score": 0.91}]},
        "key",
    ),
    ("query {\ngetApiVersion\n}", None, {"getApiVersion": "1"}, "public"),
    ("query {\ngetHealth {\nstatus\ntimestamp\n}\n}", None, {"getHealth": {"status": "x", "timestamp": NOW}}, "public"),
    (
        "mutation RecordInteraction(\n$userId: String!\n$itemId: String!\n$interactionType: String!\n$value: Float\n"
        ") {\n"
        "recordInteraction(\nuserId: $userId\nitemId: $itemId\ninteractionType: $interactionType\nvalue: $value\n) {\n"
        "success\nmessage\ntimestamp\n}\n}",
        {"userId": "user-abc", "itemId": "item-uuid", "interactionType": "purchase", "value": 1.0},
        {"recordInteraction": {"success": True, "message": "x", "timestamp": NOW}},
        "key",
    ),
)
"""(document, variables, data of the answer, credential)"""

ADDED = {
    "GET /health/ready": "whether it can do its work",
    "GET /api/status": "the tenant's models",
    "POST /auth/v1/token": "GoTrue",
    "POST /auth/v1/signup": "GoTrue",
    "GET /auth/v1/user": "GoTrue",
    "PUT /auth/v1/user": "GoTrue",
    "POST /auth/v1/logout": "GoTrue",
    "POST /graphql": "its operations are in a table of their own",
    "GET /graphql": "GraphiQL, in development only",
    "GET /api/keys": "API keys",
    "POST /api/keys": "API keys",
    "POST /api/keys/{key_id}/rotate": "API keys",
    "DELETE /api/keys/{key_id}": "API keys",
    "POST /api/items": "items are written, too",
    "POST /api/items/batch": "items are written, too",
    "PUT /api/items/{item_id}": "items are written, too",
    "PATCH /api/items/{item_id}": "items are written, too",
    "DELETE /api/items/{item_id}": "items are written, too",
    "POST /api/v1/interactions/batch": "up to 1,000 at once",
    "POST /api/v1/recommend/next": "the next page of an answer",
    "POST /api/v1/impressions": "what was really seen of an answer",
    "GET /api/recommendations/jobs/{job_id}": "how far a generation has come",
    "GET /api/users/{user_id}/export": "what is held on a user",
    "GET /api/users/{user_id}/interactions": "what a user did",
    "GET /api/audit": "who did what",
    "GET /api/v1/lists/{source}": "lists for a page without a user",
    "GET /api/segments": "groups of users and items",
    "POST /api/segments": "groups of users and items",
    "GET /api/segments/{segment_id}": "groups of users and items",
    "PUT /api/segments/{segment_id}": "groups of users and items",
    "DELETE /api/segments/{segment_id}": "groups of users and items",
    "GET /api/settings/pipeline": "what a tenant's pipeline differs in",
    "PUT /api/settings/pipeline": "what a tenant's pipeline differs in",
    "GET /api/scenarios": "what a product manager decides",
    "POST /api/scenarios": "what a product manager decides",
    "GET /api/scenarios/{scenario_id}": "what a product manager decides",
    "PUT /api/scenarios/{scenario_id}": "what a product manager decides",
    "PATCH /api/scenarios/{scenario_id}": "what a product manager decides",
    "DELETE /api/scenarios/{scenario_id}": "what a product manager decides",
    "POST /api/scenarios/{scenario_id}/preview": "what a product manager decides",
    "GET /api/scenarios/{scenario_id}/versions": "what a product manager decides",
    "GET /api/analytics/recommendations": "what came of recommendations",
    "GET /api/settings/recommendations": "the holdout",
    "PUT /api/settings/recommendations": "the holdout",
    "GET /api/exports": "files of all rows",
    "POST /api/exports": "files of all rows",
    "GET /api/exports/{export_id}": "files of all rows",
    "GET /api/exports/{export_id}/file": "files of all rows",
    "GET /api/billing/audit": "who changed plan, cap or subscription",
    "POST /api/billing/webhook": "Stripe's events",
}
"""Routes that the reference does not have, and what they are for."""
