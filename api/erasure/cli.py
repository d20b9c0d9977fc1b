"""The command that erases a tenant. It ends the tenant's subscription first."""

import sys
from typing import Annotated

import typer

from api.tenants import service as tenants
from api.terminal import in_transaction

app = typer.Typer()


@app.command()
def delete_tenant(
    tenant_id: Annotated[str, typer.Option("--id", help="the tenant's id")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
) -> None:
    """Erase all data of a tenant and end its subscription. The id is never used again."""
    from api.billing.ending import end_subscription  # it loads stripe, which other commands do without

    if not yes and sys.stdin.isatty():
        typer.confirm(f"Erase everything of {tenant_id}?", abort=True, err=True)
    left = in_transaction(lambda session: end_subscription(session, tenant_id))
    in_transaction(lambda session: tenants.delete_tenant(session, tenant_id))
    if left is not None:
        print(left, file=sys.stderr)
    print(f"{tenant_id} is deleted", file=sys.stderr)
