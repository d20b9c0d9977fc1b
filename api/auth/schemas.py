"""Bodies of the login."""

from typing import Annotated

from pydantic import Field, StringConstraints

from api.edge.schemas import PlainText, Schema
from api.users.schemas import UserOut


class Login(Schema):
    email: PlainText = Field(examples=["admin@demo.example"])
    password: Annotated[str, StringConstraints(max_length=1024)] = Field(examples=["a long password"])


class LoggedIn(Schema):
    token: str
    user: UserOut
