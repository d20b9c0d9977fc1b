"""Turns errors of GraphQL into the problem details that REST would answer."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from graphql import GraphQLError
from pydantic import ValidationError

from api.http.handlers import database_problem
from api.http.problems import Invalid, Problem, problem_body

log = structlog.get_logger(__name__)


def problem_of(app: FastAPI, error: GraphQLError) -> Problem:
    """The problem that REST would answer. An unexpected exception is logged and becomes a 500."""
    cause = error.original_error
    if isinstance(cause, GraphQLError):
        cause = cause.original_error
    if isinstance(cause, Problem):
        return cause
    if cause is None:  # an error of the document or the variables
        return Invalid(error.message)
    if isinstance(cause, RecursionError):
        return Invalid.field("query", "is nested too deeply")
    if isinstance(cause, ValueError) and error.path is None:  # Python's bound on the digits of an integer
        return Invalid.field("query", "holds a number of too many digits")
    if (problem := database_problem(app, cause)) is not None:
        return problem
    field = error.path[0] if error.path else None
    log.error("unhandled", field=field, exc_info=cause)
    return Problem(500, "The server failed on this field; its log has the reason under the trace id")


def extensions_of(problem: Problem) -> dict[str, Any]:
    """`code` and the members of the problem, without its detail, which is the error's message."""
    members = problem_body(problem)
    del members["detail"]
    return {"code": HTTPStatus(problem.status_code).name, **members}


def formatted(app: FastAPI, error: GraphQLError) -> dict[str, Any]:
    """The error in the form of a GraphQL response."""
    problem = problem_of(app, error)
    members: dict[str, Any] = {"message": problem.detail}
    if error.locations:
        members["locations"] = [{"line": place.line, "column": place.column} for place in error.locations]
    if error.path is not None:
        members["path"] = error.path
    return {**members, "extensions": extensions_of(problem)}


def invalid(error: ValidationError) -> Invalid:
    """The problem of arguments that do not validate. Fields are named as the client wrote them."""
    errors = [
        {
            "field": ".".join(str(part) for part in found["loc"]),
            "message": str(found["msg"]).removeprefix("Value error, "),
        }
        for found in error.errors(include_url=False, include_input=False)
    ]
    return Invalid(f"{errors[0]['field']}: {errors[0]['message']}", errors)  # type: ignore[arg-type]
