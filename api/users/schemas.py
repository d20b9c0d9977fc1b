"""Users in requests and responses."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StrictBool, StringConstraints, WithJsonSchema, model_validator

from api.http.schemas import Instant, OpaqueId, PlainText, Schema
from api.users import addresses, passwords

Password = Annotated[str, StringConstraints(max_length=1024)]
# Services check the length and form of these two. The JSON schema only documents them.
NewPassword = Annotated[
    Password, WithJsonSchema({"type": "string", "minLength": passwords.MIN_LENGTH, "maxLength": passwords.MAX_LENGTH})
]
Email = Annotated[PlainText, WithJsonSchema({"type": "string", "pattern": addresses.PATTERN})]
Role = Literal["user", "admin"]


class UserOut(Schema):
    """A user. The password is never shown."""

    id: str
    email: str | None = Field(examples=["user@example.com"])
    name: str | None = Field(examples=["John Doe"])
    role: Role
    is_active: bool
    created_at: Instant
    last_active_at: Instant | None = Field(description="Latest interaction or login; null before the first")


class _Attributes(Schema):
    email: Email | None = Field(
        default=None, description="Unique among all who can log in", examples=["user@example.com"]
    )
    name: PlainText | None = Field(default=None, examples=["John Doe"])
    password: NewPassword | None = Field(
        default=None, description="8 to 256 characters; a user with a password can log in", examples=["a long password"]
    )


class UserChanges(_Attributes):
    """Attributes of a user to change. Those that are left out stay as they are."""

    role: Role | None = Field(default=None, examples=["user"])
    is_active: StrictBool | None = Field(default=None, examples=[True])


class NewUser(_Attributes):
    """A user to create: a portal user with a password, or an end user."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["email"], "properties": {"email": {"type": "string"}}},
                {"required": ["id"], "properties": {"id": {"type": "string"}, "password": {"type": "null"}}},
            ]
        }
    )

    role: Role = "user"
    is_active: StrictBool = True
    id: OpaqueId | None = Field(default=None, description="Your own id of an end user; generated if left out")

    @model_validator(mode="after")
    def _is_somebody(self) -> "NewUser":
        if self.email is None and (self.id is None or self.password is not None):
            raise ValueError("email: required, unless an end user is named by its id")
        return self
