"""Commands about API keys."""

from typing import Annotated

import typer
from sqlmodel.ext.asyncio.session import AsyncSession

from api.keys import service
from api.tenants.service import live_tenant
from api.terminal import fail, in_transaction

app = typer.Typer()


@app.command()
def create_key(
    tenant: Annotated[str, typer.Option(help="the tenant's id")],
    name: Annotated[str, typer.Option(help="what the key is for")],
    scopes: Annotated[str, typer.Option(help="read, write or both, between commas")] = "read,write",
    rate_limit: Annotated[str | None, typer.Option(help="requests a minute, or `none` for no limit")] = None,
) -> None:
    """Create an API key and print it. It is not shown again."""
    limit = _limit(rate_limit)

    async def create(session: AsyncSession) -> str:
        scope = await live_tenant(session, tenant)
        _, key = await service.create_key(session, scope, name, [word.strip() for word in scopes.split(",")], limit)
        return key

    print(in_transaction(create))


def _limit(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "none":
        return 0
    if not text.isdigit() or int(text) == 0:
        fail("--rate-limit: a number of requests a minute, or `none`")
    return int(text)
