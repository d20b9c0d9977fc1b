"""Turns exceptions into problem details. FastAPI calls these handlers for exceptions that routes raise."""

from typing import Any, cast

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.database.engine import UNREACHABLE
from api.http.problems import FieldError, Invalid, Problem, Unavailable, problem_response

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
RETRY_SECONDS = 1
"""What a client is told to wait when the database is away: a restart takes about as long."""

log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Register the handlers. `api.http.requests` answers all other exceptions with 500."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    for unreachable in (*UNREACHABLE, DBAPIError):
        app.add_exception_handler(unreachable, _database)


async def _http(request: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    if isinstance(error, Problem):
        return problem_response(error)
    if error.status_code == 404:
        return problem_response(Problem(404, "There is no such route"))
    if error.status_code == 405:
        allowed = ", ".join(sorted(_allowed_methods(request)))
        detail = f"This route takes {allowed}, not {request.method}"
        return problem_response(Problem(405, detail, headers={"Allow": allowed}))
    return problem_response(error)


def _allowed_methods(request: Request) -> set[str]:
    """The methods of all routes at this path. (The router names those of the first route only.)"""
    return {
        method
        for method in METHODS
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    }


async def _validation(_request: Request, error: Exception) -> Response:
    errors = [_field_error(found) for found in cast(RequestValidationError, error).errors()]
    first = errors[0]
    detail = f"{first['field']}: {first['message']}" if first["field"] else first["message"]
    return problem_response(Invalid(detail, errors))


def _field_error(found: dict[str, Any]) -> FieldError:
    place = found["loc"]
    if found["type"] == "json_invalid":
        return {"field": "", "message": f"The body is not valid JSON: {found['ctx']['error']} at position {place[-1]}"}
    message = str(found["msg"]).removeprefix("Value error, ")
    return {"field": ".".join(str(part) for part in place[1:]), "message": message}


async def _database(request: Request, error: Exception) -> Response:
    problem = database_problem(request.app, error)
    if problem is None:
        raise error
    return problem_response(problem)


def database_problem(app: FastAPI, error: Exception) -> Problem | None:
    """503 where the error means that the database does not answer; None for any other error."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, UNREACHABLE):
        return None
    log.warning("the database does not answer", error=repr(cause))
    app.state.database.recheck()
    return Unavailable("The database does not answer", RETRY_SECONDS)
