"""Shared by all commands: a transaction to work in, and errors printed as sentences."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import typer
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Database
from api.database.origin import COMMAND_LINE, set_origin
from api.database.session import transaction
from api.http.problems import Problem
from configs.database import LimitsOfJobs
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings

Result = TypeVar("Result")


def database_url() -> str:
    """The database's URL, with the limits of jobs. Raises FileNotFoundError, with advice, where no URL is known."""
    return LimitsOfJobs().limited(DatabaseSettings().resolve(PathSettings()))


def in_transaction(work: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    """Run `work` in a transaction and return its result. Errors end the command with a message."""

    async def run() -> Result:
        database = Database(database_url(), pool_min=1)
        try:
            async with transaction(database) as session:
                set_origin(session, COMMAND_LINE)
                return await work(session)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except Problem as problem:
        fail(str(problem.detail))
    except DBAPIError as error:
        fail(str(error.orig).strip())
    except (FileNotFoundError, ValueError) as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """End the command with this message."""
    print(message, file=sys.stderr)
    raise typer.Exit(1)
