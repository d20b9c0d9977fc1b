"""The command line. A command that makes something prints the value alone on stdout; words go to stderr."""

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, NoReturn, TypeVar

import psycopg
import sqlalchemy.exc
import typer
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Database
from api.database.session import transaction
from api.edge.problems import Problem
from api.keys.service import create_key as make_key
from api.tenants import service as tenants
from api.users import service as users
from api.users.passwords import Passwords
from configs import logging
from configs.settings import DatabaseSettings, PathSettings, PortSettings, PostgresSettings

Result = TypeVar("Result")
Tenant = Annotated[str, typer.Option("--tenant", help="the tenant's id")]
Email = Annotated[str, typer.Option(help="the address to log in with")]
Password = Annotated[str | None, typer.Option(help="made up and printed where it is left out")]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def commands() -> None:
    """RecommendAI: tenants, keys, data, and the API's own processes."""


@app.command()
def create_tenant(
    tenant_id: Annotated[str, typer.Option("--id", help="2 to 32 of a-z, 0-9 and -; never to be used again")],
    plan: Annotated[str, typer.Option(help="a plan of configs/plans.yaml")] = "free",
) -> None:
    """Make a tenant and print its id."""
    print(_in_transaction(lambda session: tenants.create_tenant(session, tenant_id, plan)).id)


@app.command()
def list_tenants() -> None:
    """Print a line per tenant: id, plan, and when it was made."""
    for tenant in _in_transaction(tenants.list_tenants):
        print(f"{tenant.id}\t{tenant.plan}\t{tenant.created_at:%Y-%m-%dT%H:%M:%SZ}")


@app.command()
def delete_tenant(
    tenant_id: Annotated[str, typer.Option("--id", help="the tenant's id")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Erase a tenant's data for good. Its id is not used again."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Erase everything of {tenant_id}?", abort=True, err=True)
    _in_transaction(lambda session: tenants.delete_tenant(session, tenant_id))
    print(f"{tenant_id} is deleted", file=sys.stderr)


@app.command()
def create_admin(tenant: Tenant, email: Email, password: Password = None) -> None:
    """Make an administrator of a tenant and print the password."""
    chosen = password or secrets.token_urlsafe(18)

    async def create(session: AsyncSession) -> None:
        scope = await tenants.live_tenant(session, tenant)
        await users.create_admin(session, Passwords(), scope, email, chosen)

    _in_transaction(create)
    print(chosen)


@app.command()
def set_password(email: Email, password: Password = None) -> None:
    """Give a portal user another password and print it."""
    chosen = password or secrets.token_urlsafe(18)
    _in_transaction(lambda session: users.set_password(session, Passwords(), email, chosen))
    print(chosen)


@app.command()
def create_key(
    tenant: Tenant,
    name: Annotated[str, typer.Option(help="what the key is for")],
    scopes: Annotated[str, typer.Option(help="read, write or both, between commas")] = "read,write",
    rate_limit: Annotated[str | None, typer.Option(help="requests a minute, or `none` for no limit")] = None,
) -> None:
    """Make an API key and print it. It is not shown again."""
    limit = _rate_limit(rate_limit)

    async def create(session: AsyncSession) -> str:
        scope = await tenants.live_tenant(session, tenant)
        _, key = await make_key(session, scope, name, [word.strip() for word in scopes.split(",")], limit)
        return key

    print(_in_transaction(create))


@app.command()
def migrate() -> None:
    """Bring the database up to this code's tables. Safe to run from several places at once."""
    from api.database.migrate import upgrade

    with _Explained():
        print(f"the database is at revision {upgrade(_url())}", file=sys.stderr)


@app.command()
def postgres() -> None:
    """Run the bundled PostgreSQL in the foreground; its URL is in the state folder once it answers."""
    from api.database import server

    logging.configure("postgres")
    with _Explained():
        raise typer.Exit(server.run(PathSettings(), PortSettings(), PostgresSettings()))


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="default: BIND_HOST or 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="default: API_PORT or 8080")] = None,
) -> None:
    """Run the API in one process."""
    import uvicorn

    from api.asgi import application

    ports = PortSettings()
    with _Explained():
        asgi = application()
    uvicorn.run(
        asgi,
        host=host or ports.host,
        port=ports.api if port is None else port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,  # ours stands
        access_log=False,  # ours has the trace id
        proxy_headers=False,  # whose word counts is decided in api.edge.client
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def main() -> None:
    own = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    if not {word.replace("-", "_") for word in sys.argv[1:2]} & own:
        # The commands that load data bring DuckDB with them, which the others need not wait for.
        from api.imports.cli import app as imports

        app.add_typer(imports)
    app()


class _Explained:
    """Turns the errors that a person can do something about into a sentence and exit code 1."""

    EXPECTED = (Problem, RuntimeError, FileNotFoundError, ValueError, psycopg.Error, sqlalchemy.exc.OperationalError)

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Problem):
            _fail(str(error.detail))
        if isinstance(error, sqlalchemy.exc.OperationalError):
            _fail(str(error.orig).strip())
        if isinstance(error, self.EXPECTED) and not isinstance(error, typer.Exit):
            _fail(str(error))


def _in_transaction(work: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        database = Database(_url(), pool_min=1)
        try:
            async with transaction(database) as session:
                return await work(session)
        finally:
            await database.close()

    with _Explained():
        return asyncio.run(run())
    raise AssertionError("unreachable")


def _url() -> str:
    return DatabaseSettings().resolve(PathSettings())


def _rate_limit(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "none":
        return 0
    if not text.isdigit() or int(text) == 0:
        _fail("--rate-limit: a number of requests a minute, or `none`")
    return int(text)


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(1)
