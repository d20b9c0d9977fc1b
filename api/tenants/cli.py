"""Commands about tenants."""

import sys
from typing import Annotated

import typer

from api.tenants import service
from api.terminal import in_transaction

app = typer.Typer()


@app.command()
def create_tenant(
    tenant_id: Annotated[str, typer.Option("--id", help="2 to 32 of a-z, 0-9 and -; never to be used again")],
    plan: Annotated[str, typer.Option(help="a plan of configs/plans.yaml")] = "free",
) -> None:
    """Make a tenant and print its id."""
    print(in_transaction(lambda session: service.create_tenant(session, tenant_id, plan)).id)


@app.command()
def list_tenants() -> None:
    """Print a line per tenant: id, plan, and when it was made."""
    for tenant in in_transaction(service.list_tenants):
        print(f"{tenant.id}\t{tenant.plan}\t{tenant.created_at:%Y-%m-%dT%H:%M:%SZ}")


@app.command()
def delete_tenant(
    tenant_id: Annotated[str, typer.Option("--id", help="the tenant's id")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Erase a tenant's data for good and end its subscription. Its id is not used again."""
    from api.billing.ending import end_subscription

    if not yes and sys.stdin.isatty():
        typer.confirm(f"Erase everything of {tenant_id}?", abort=True, err=True)
    left = in_transaction(lambda session: end_subscription(session, tenant_id))
    in_transaction(lambda session: service.delete_tenant(session, tenant_id))
    if left is not None:
        print(left, file=sys.stderr)
    print(f"{tenant_id} is deleted", file=sys.stderr)
