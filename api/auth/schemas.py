"""Requests and responses of login and registration."""

from pydantic import Field

from api.http.schemas import Instant, PlainText, Schema
from api.users.schemas import Email, NewPassword, Password, Role


class Login(Schema):
    email: PlainText = Field(examples=["admin@demo.example"])
    password: Password = Field(examples=["a long password"])


class Registration(Schema):
    email: Email = Field(examples=["newuser@example.com"])
    password: NewPassword = Field(examples=["secure_password"])
    name: PlainText | None = Field(default=None, examples=["Jane Doe"])


class LoggedInUser(Schema):
    """The user who logged in."""

    id: str
    email: str | None
    name: str | None
    role: Role = Field(examples=["admin"])
    is_active: bool
    created_at: Instant


class LoggedIn(Schema):
    """A token for `Authorization: Bearer`, and its user."""

    token: str
    user: LoggedInUser
