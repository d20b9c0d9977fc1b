"""The command line. A command that makes something prints the value alone on stdout; words go to stderr."""

import sys
from typing import NoReturn

import typer

from api.database.cluster import ClusterError
from configs import logging
from configs.settings import DatabaseSettings, PathSettings, PortSettings, PostgresSettings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def commands() -> None:
    """RecommendAI: tenants, keys, data and the API's own processes."""


@app.command()
def postgres() -> None:
    """Run the bundled PostgreSQL in the foreground and write its URL to the state folder once it answers."""
    from api.database import server

    logging.configure("postgres")
    try:
        raise typer.Exit(server.run(PathSettings(), PortSettings(), PostgresSettings()))
    except (ClusterError, RuntimeError) as error:
        _fail(str(error))


@app.command()
def migrate() -> None:
    """Bring the database up to this code's tables. Safe to run from several places at once."""
    from api.database.migrate import upgrade

    print(f"the database is at revision {upgrade(DatabaseSettings().resolve(PathSettings()))}", file=sys.stderr)


def main() -> None:
    app()


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(1)
