"""The export of a person in responses."""

from typing import Any

from pydantic import Field

from api.http.schemas import Instant, Schema

Row = dict[str, Any]


def _rows(description: str) -> Any:
    return Field(description=description, examples=[[]])


class PersonExport(Schema):
    """Everything that the database holds on a person. Bytes are in base64."""

    user_id: str = Field(examples=["user-uuid"])
    exported_at: Instant
    profile: Row = Field(
        description="The user itself; of a password only whether there is one",
        examples=[{"id": "user-uuid", "email": "user@example.com", "hasPassword": True}],
    )
    interactions: list[Row] = _rows("What the person did, oldest first")
    recommendations: list[Row] = _rows("Recommendation records")
    impressions: list[Row] = _rows("What was shown to the person")
    history: list[Row] = _rows("The kept history, in the form in which models get it")
    active_days: list[Row] = _rows("Days on which the person counts as active")
    segments: list[Row] = _rows("Segments that the person is in")
    sessions: list[Row] = _rows("Logins that are valid")
    login_networks: list[Row] = _rows("Networks that the person logged in from")
    stored_responses: list[Row] = _rows("Responses that are kept for a day for an `Idempotency-Key`")
    audit_by_user: list[Row] = _rows("The audit trail of what the person did")
    audit_about_user: list[Row] = _rows("The audit trail of what others did to the person")
    billing_changes: list[Row] = _rows("Changes of cap that the person made")
    erasures: list[Row] = _rows("When an earlier user of this id was erased")
    alert_addresses: list[Row] = _rows("Whether alerts of the pipeline go to the person's address, and since when")
    failed_logins: list[Row] = _rows("Wrong passwords for the person's address that delay it")
