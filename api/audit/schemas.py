"""The audit trail in responses."""

from typing import Any
from uuid import UUID

from pydantic import Field

from api.http.schemas import Instant, Schema


class AuditRecord(Schema):
    """One entry of the audit trail."""

    id: UUID
    action: str = Field(
        description="`login.succeeded`, `login.failed`; `key.created`, `.rotated`, `.revoked`; `user.created`, "
        "`.changed`, `.deleted`, `.erased`, `.exported`; `role.changed`; `password.changed`; `tenant.created`; "
        "`plan.changed`; `cap.changed`; `subscription.changed`; `pipeline.changed`; "
        "`segment.created`, `.changed`, `.deleted`; `scenario.created`, `.changed`, `.deleted`; `alert.failed`; "
        "`model.promoted`, `.rolled_back`",
        examples=["key.created"],
    )
    actor: str = Field(
        description="The id of the user who did it, or `command-line`, `service`, `stripe`, `pipeline`, "
        "`identity-provider`, `anonymous` for a failed login, `erased` for a user deleted since. A user whose id is "
        "one of these words is written as `user:` and the id",
        examples=["user-uuid"],
    )
    target: str | None = Field(
        description="The id of the user, key or scenario, the tenant, or the model and its version",
        examples=["0198c0de-0000-7000-8000-000000000000"],
    )
    at: Instant
    ip: str | None = Field(description="The client's address; `erased` where its user is", examples=["203.0.113.7"])
    detail: dict[str, Any] | None = Field(
        description="What changed. Of the logins and failures of a user in an hour, the first twenty are entries; one "
        "more counts the rest as `more`",
        examples=[{"name": "shop backend", "scopes": ["read", "write"]}],
    )
