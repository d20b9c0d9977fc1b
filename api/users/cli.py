"""Commands about portal users."""

import secrets
from typing import Annotated

import typer
from sqlmodel.ext.asyncio.session import AsyncSession

from api.tenants.service import live_tenant
from api.terminal import in_transaction
from api.users import service
from api.users.passwords import Passwords

app = typer.Typer()
Email = Annotated[str, typer.Option(help="the address to log in with")]
Password = Annotated[
    str | None,
    typer.Option(
        envvar="PORTAL_PASSWORD",
        help="generated if left out; other users of the machine see options, so rather set the variable",
    ),
]


@app.command()
def create_admin(
    tenant: Annotated[str, typer.Option(help="the tenant's id")], email: Email, password: Password = None
) -> None:
    """Create an administrator of a tenant and print the password."""
    chosen = password or secrets.token_urlsafe(18)

    async def create(session: AsyncSession) -> None:
        scope = await live_tenant(session, tenant)
        await service.create_admin(session, Passwords(), scope, email, chosen)

    in_transaction(create)
    print(chosen)


@app.command()
def set_password(email: Email, password: Password = None) -> None:
    """Change the password of a portal user and print the new one."""
    chosen = password or secrets.token_urlsafe(18)
    in_transaction(lambda session: service.set_password(session, Passwords(), email, chosen))
    print(chosen)
