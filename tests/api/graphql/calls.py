"""The operations of the API reference, and how tests send them."""

from typing import Any

from starlette.testclient import TestClient

RECOMMENDATIONS = """
query GetRecommendations($userId: String!, $count: Int!, $algorithm: String) {
  getRecommendations(userId: $userId, count: $count, algorithm: $algorithm) {
    itemId
    score
    algorithm
    explanation
  }
}
"""
SIMILAR = """
query GetSimilarItems($itemId: String!, $count: Int!) {
  getSimilarItems(itemId: $itemId, count: $count) {
    itemId
    score
  }
}
"""
VERSION = "query {\n  getApiVersion\n}"
HEALTH = "query {\n  getHealth {\n    status\n    timestamp\n  }\n}"
RECORD = """
mutation RecordInteraction(
  $userId: String!
  $itemId: String!
  $interactionType: String!
  $value: Float
) {
  recordInteraction(
    userId: $userId
    itemId: $itemId
    interactionType: $interactionType
    value: $value
  ) {
    success
    message
    timestamp
  }
}
"""


def run(client: TestClient, query: str, status: int = 200, **variables: Any) -> dict[str, Any]:
    """The body of an answer that must have this status."""
    response = client.post("/graphql", json={"query": query, "variables": variables})
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    return body


def data(client: TestClient, query: str, **variables: Any) -> dict[str, Any]:
    """The data of an answer that must hold no error."""
    body = run(client, query, **variables)
    assert "errors" not in body, body
    found: dict[str, Any] = body["data"]
    return found


def failure(client: TestClient, query: str, **variables: Any) -> tuple[str, int]:
    """Code and status of the one error of an operation whose one field failed."""
    body = run(client, query, **variables)
    assert list(body["data"].values()) == [None]
    (error,) = body["errors"]
    assert error["path"] == list(body["data"])
    return error["extensions"]["code"], error["extensions"]["status"]
