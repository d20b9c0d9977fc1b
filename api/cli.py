"""The command line. Commands about processes are here; each domain's `cli.py` holds the commands of that domain.

A command that creates something prints only its value (id, key, password) on stdout. All messages go to stderr.
"""

import resource
import sys
from contextlib import ExitStack
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from configs import logging
from configs.addresses import PortSettings
from configs.api import ServerSettings
from configs.files import keep_state_private
from configs.postgres import DatabaseSettings, PostgresSettings
from configs.settings import PathSettings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
DOMAINS = Path(__file__).parent
OTHER_FILES = 200
"""Open files beside the connections of clients: those to the database and the model server, libraries, logs."""


@app.callback()
def commands() -> None:
    """RecommendAI: tenants, keys, data, and the API's own processes."""


@app.command()
def postgres() -> None:
    """Run the bundled PostgreSQL in the foreground. Once it answers, its URL is in the state folder."""
    from configs.local import postgres_server as server
    from configs.local.os_user import BundledPostgresError

    logging.configure("postgres")
    try:
        raise typer.Exit(server.run_server(PathSettings(), PortSettings(), PostgresSettings()))
    except BundledPostgresError as error:
        _fail(error)


@app.command()
def migrate() -> None:
    """Migrate the database to the newest revision. Several processes may run this at the same time.

    Where `DATABASE_OWNER_URL` names another role than `DATABASE_URL`, the latter is granted its rights. Where the
    database was restored in another cluster, the erasures of the state folder's journal are repeated.
    """
    import psycopg
    import sqlalchemy.exc

    from api.backup.lineage import repeat_erasures
    from api.database.engine import role_of
    from api.database.migrate import upgrade

    paths, settings = PathSettings(), DatabaseSettings()
    try:
        owner, url = settings.resolve_owner(paths), settings.resolve(paths)
        revision = upgrade(owner, grant_to=None if role_of(url) == role_of(owner) else role_of(url))
        repeated = repeat_erasures(paths, url)
    except (FileNotFoundError, ValueError) as error:
        _fail(error)
    except sqlalchemy.exc.DBAPIError as error:
        _fail(error.orig or error)
    except psycopg.Error as error:
        _fail(error)
    print(f"the database is at revision {revision}", file=sys.stderr)
    if repeated is not None:
        print(
            f"it is in another cluster than before: {repeated.users} users and {len(repeated.tenants)} tenants erased "
            f"again, {repeated.keys} keys revoked again; `replay-journal` also ends sessions",
            file=sys.stderr,
        )


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="default: BIND_HOST or 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="default: API_PORT or 8080")] = None,
) -> None:
    """Run the API, in as many processes as `API_WORKERS` says. Its metrics are on the port `METRICS_PORT`, if any."""
    from uvicorn import Config

    from api.asgi import application
    from api.auth.signing_keys import MissingSecretError
    from api.http.connections import BoundedProtocol
    from api.http.draining import serve_until_ended
    from configs.local.processes import DRAIN_SECONDS
    from configs.metrics import counted_over_processes, serving_metrics

    ports, server = PortSettings(), ServerSettings()
    try:
        asgi = application()  # several processes make their own, but an error of the settings is reported here
    except (MissingSecretError, FileNotFoundError, ValueError) as error:
        _fail(error)
    _allow_open_files(server.max_connections + OTHER_FILES)
    with ExitStack() as stack:
        if server.workers > 1:
            stack.enter_context(counted_over_processes())
        if ports.metrics is not None:
            try:
                stack.enter_context(serving_metrics(ports.metrics_host, ports.metrics))
            except OSError as error:
                _fail(OSError(f"METRICS_PORT={ports.metrics}: {error}"))
        configuration = Config(
            asgi if server.workers == 1 else "api.asgi:application",
            factory=server.workers > 1,
            workers=server.workers,
            host=host or ports.host,
            port=ports.api if port is None else port,
            loop="uvloop",
            http=BoundedProtocol,
            timeout_keep_alive=server.idle_seconds,
            ws="none",
            log_config=None,  # `configs.logging` has configured it
            access_log=False,  # `api.http.requests` logs requests, with their trace ids
            proxy_headers=False,  # `api.http.client` decides which proxies are trusted
            server_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        serve_until_ended(configuration)


@cache
def all_commands() -> typer.Typer:
    """The commands of this module and of every domain."""
    for domain in sorted(path.parent.name for path in DOMAINS.glob("*/cli.py")):
        app.add_typer(import_module(f"api.{domain}.cli").app)
    return app


def main() -> None:
    """Run the command of `sys.argv`. Domains are imported only where the command is not one of this module."""
    keep_state_private()
    own = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    command_line = app if own & set(sys.argv[1:2]) else all_commands()
    command_line()


def _allow_open_files(count: int) -> None:
    """Raise this process's bound on open files to so many, or to the most that it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _fail(error: BaseException) -> NoReturn:
    print(str(error).strip(), file=sys.stderr)
    raise typer.Exit(1) from error
