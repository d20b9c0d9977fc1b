"""The command that erases a tenant. It ends the tenant's subscription first."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlmodel.ext.asyncio.session import AsyncSession

from api.erasure.journal import ErasureJournal
from api.tenants import service as tenants
from api.terminal import in_transaction
from configs.journal import AnotherJournalError, JournalSettings
from configs.settings import PathSettings

app = typer.Typer()


@app.command()
def delete_tenant(
    tenant_id: Annotated[str, typer.Option("--id", help="the tenant's id")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
) -> None:
    """Erase all data of a tenant, end its subscription and say what remains at Stripe. The id is never used again."""
    from api.billing.ending import end_subscription  # it loads stripe, which other commands do without

    if not yes and sys.stdin.isatty():
        typer.confirm(f"Erase everything of {tenant_id}?", abort=True, err=True)
    left = in_transaction(lambda session: end_subscription(session, tenant_id))
    journal = ErasureJournal(PathSettings(), JournalSettings())

    async def erase(session: AsyncSession) -> None:
        await tenants.delete_tenant(session, tenant_id)
        await journal.record(tenant_id, None, datetime.now(UTC))

    in_transaction(erase)
    try:
        asyncio.run(journal.copy())
    except (OSError, AnotherJournalError) as error:
        print(f"the journal of erasures is not copied yet, the API will do it: {error}", file=sys.stderr)
    for sentence in left:
        print(sentence, file=sys.stderr)
    print(f"{tenant_id} is deleted", file=sys.stderr)
