"""The server that sends mails. Without `SMTP_HOST` no mail is sent."""

from typing import Literal

from pydantic import Field, SecretStr

from configs.settings import Settings


class MailSettings(Settings):
    """Any SMTP server."""

    host: str | None = Field(default=None, alias="SMTP_HOST", min_length=1, description="None: no mails are sent")
    port: int = Field(default=587, alias="SMTP_PORT", ge=1, le=65_535, description="of the server")
    user: str | None = Field(default=None, alias="SMTP_USER", description="None: no login")
    password: SecretStr | None = Field(default=None, alias="SMTP_PASSWORD", description="of the login")
    sender: str = Field(
        default="recommendai@localhost",
        alias="SMTP_FROM",
        pattern=r"^[!-~]+@[!-~]+$",
        description="address of the sender",
    )
    tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls",
        alias="SMTP_TLS",
        description="how the connection is encrypted; none: for a trusted network",
    )
