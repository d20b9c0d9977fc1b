"""Commands about tenants."""

from typing import Annotated

import typer

from api.tenants import service
from api.terminal import in_transaction

app = typer.Typer()


@app.command()
def create_tenant(
    tenant_id: Annotated[str, typer.Option("--id", help="2 to 32 of a-z, 0-9 and -; an id is never used again")],
    plan: Annotated[str, typer.Option(help="a plan of configs/plans.yaml")] = "free",
) -> None:
    """Create a tenant and print its id."""
    print(in_transaction(lambda session: service.create_tenant(session, tenant_id, plan)).id)


@app.command()
def list_tenants() -> None:
    """Print a line per tenant: id, plan and time of creation."""
    for tenant in in_transaction(service.list_tenants):
        print(f"{tenant.id}\t{tenant.plan}\t{tenant.created_at:%Y-%m-%dT%H:%M:%SZ}")
