"""The command line: the API's processes here, everything about a domain in that domain's `cli.py`.

A command that makes something prints the value alone on stdout; words go to stderr.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from configs import logging
from configs.settings import DatabaseSettings, PathSettings, PortSettings, PostgresSettings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
DOMAINS = Path(__file__).parent


@app.callback()
def commands() -> None:
    """RecommendAI: tenants, keys, data, and the API's own processes."""


@app.command()
def postgres() -> None:
    """Run the bundled PostgreSQL in the foreground; its URL is in the state folder once it answers."""
    from configs.local import postgres_server as server
    from configs.local.os_user import BundledPostgresError

    logging.configure("postgres")
    try:
        raise typer.Exit(server.run_server(PathSettings(), PortSettings(), PostgresSettings()))
    except BundledPostgresError as error:
        _fail(error)


@app.command()
def migrate() -> None:
    """Bring the database up to this code's tables. Safe to run from several places at once."""
    import sqlalchemy.exc

    from api.database.migrate import upgrade

    try:
        revision = upgrade(DatabaseSettings().resolve(PathSettings()))
    except (FileNotFoundError, ValueError) as error:
        _fail(error)
    except sqlalchemy.exc.OperationalError as error:
        _fail(error.orig or error)
    print(f"the database is at revision {revision}", file=sys.stderr)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="default: BIND_HOST or 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="default: API_PORT or 8080")] = None,
) -> None:
    """Run the API in one process."""
    import uvicorn

    from api.asgi import application
    from api.auth.tokens import MissingSecretError

    ports = PortSettings()
    try:
        asgi = application()
    except (MissingSecretError, FileNotFoundError, ValueError) as error:
        _fail(error)
    uvicorn.run(
        asgi,
        host=host or ports.host,
        port=ports.api if port is None else port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,  # ours stands
        access_log=False,  # ours has the trace id
        proxy_headers=False,  # whose word counts is decided in api.http.client
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def main() -> None:
    """Run the command of `sys.argv`. The domains are loaded only where it may be one of theirs."""
    own = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    if not own & set(sys.argv[1:2]):
        for domain in sorted(path.parent.name for path in DOMAINS.glob("*/cli.py")):
            app.add_typer(import_module(f"api.{domain}.cli").app)
    app()


def _fail(error: BaseException) -> NoReturn:
    print(str(error).strip(), file=sys.stderr)
    raise typer.Exit(1) from error
