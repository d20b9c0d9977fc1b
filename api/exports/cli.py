"""The command `export`. Arrow is imported where it runs: other commands need not wait for it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from api.exports.schemas import ExportFormat
from api.tenants import service as tenants
from api.terminal import database_url, fail, in_transaction

app = typer.Typer()


@app.command()
def export(
    to: Annotated[Path, typer.Option("--to", help="the folder; each tenant gets one in it")],
    tenant: Annotated[str | None, typer.Option(help="a tenant's id; without it, all tenants")] = None,
    file_format: Annotated[ExportFormat, typer.Option("--format", help="of the files")] = "parquet",
) -> None:
    """Write the interactions, impressions, seen items and recommendations of a tenant, or of all, into files.

    Each file appears whole, in place of one that was there, and is readable by its owner alone. Its path is printed.
    These files are yours: no erasure of a user reaches them.
    """
    from configs.files import PRIVATE
    from configs.storage import open_storage
    from feature_store.table_files import EXPORTED_TABLES, write_table

    if tenant is None:
        ids = [each.id for each in in_transaction(tenants.list_tenants)]
    else:
        ids = [in_transaction(lambda session: tenants.live_tenant(session, tenant)).tenant_id]
    storage = open_storage(to.absolute())
    for tenant_id in ids:
        for table in EXPORTED_TABLES:
            key = f"{tenant_id}/{table}.{file_format}"
            try:
                with storage.put(key, PRIVATE) as file:
                    rows = write_table(database_url(), tenant_id, table, file_format, file)
            except OSError as error:
                fail(str(error))
            print(storage.local(key))
            print(f"{tenant_id}: {rows:,} {table}", file=sys.stderr)
