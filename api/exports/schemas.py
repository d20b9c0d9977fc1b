"""Exports of a person and of a tenant's rows, in requests and responses."""

from typing import Any, Literal, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from api.http.schemas import Instant, Schema, WrittenInstant

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
    exports: list[Row] = _rows("Exports of the tenant's rows that the person asked for")


ExportKind = Literal["interactions", "impressions", "recommendations", "seen_impressions"]
ExportFormat = Literal["parquet", "csv"]
ExportStatus = Literal["processing", "completed", "failed", "expired"]


class ExportRequest(Schema):
    """The rows that are asked for, and the kind of file."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"kind": "interactions", "format": "parquet", "from": "2026-01-01T00:00:00Z"}]},
    )

    kind: ExportKind = Field(
        description="`impressions` are answers that were shown, `seen_impressions` their items that came into view, "
        "`recommendations` single records"
    )
    format: ExportFormat = "parquet"
    since: WrittenInstant | None = Field(default=None, alias="from", description="Rows of this time and later")
    until: WrittenInstant | None = Field(default=None, alias="to", description="Rows before this time")

    @model_validator(mode="after")
    def _is_a_period(self) -> Self:
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError("`to` must be later than `from`")
        return self


class ExportOut(Schema):
    """An export, and where its file is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "0198c0de-0000-7000-8000-000000000000",
                    "kind": "interactions",
                    "format": "parquet",
                    "from": "2026-01-01T00:00:00Z",
                    "to": None,
                    "status": "completed",
                    "rows": 120000,
                    "bytes": 2400000,
                    "error": None,
                    "url": "/api/exports/0198c0de-0000-7000-8000-000000000000/file",
                    "createdAt": "2026-02-01T12:00:00Z",
                    "finishedAt": "2026-02-01T12:00:09Z",
                    "expiresAt": "2026-02-02T12:00:09Z",
                }
            ]
        }
    )

    id: UUID
    kind: ExportKind
    format: ExportFormat
    since: Instant | None = Field(alias="from")
    until: Instant | None = Field(alias="to")
    status: ExportStatus
    rows: int | None = Field(description="Rows of the file, once it is completed")
    bytes: int | None
    error: str | None = Field(description="Why there is no file, where it failed or was withdrawn")
    url: str | None = Field(
        description="Where the file is, for the administrator who asked for it and until it expires; otherwise null"
    )
    created_at: Instant
    finished_at: Instant | None
    expires_at: Instant | None
