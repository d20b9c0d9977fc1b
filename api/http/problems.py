"""Errors as RFC 9110 problem details, whatever raised them."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypedDict

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.http.tracing import traceparent

SECTIONS = {
    400: "15.5.1",
    401: "15.5.2",
    402: "15.5.3",
    403: "15.5.4",
    404: "15.5.5",
    405: "15.5.6",
    409: "15.5.10",
    413: "15.5.14",
    415: "15.5.16",
    500: "15.6.1",
    503: "15.6.4",
}
"""The section of RFC 9110 that defines each status. (RFC 6585 defines 429.)"""
TITLES = {402: "Payment Required", 413: "Content Too Large", 422: "Unprocessable Content", 500: "Internal Server Error"}
MEDIA_TYPE = "application/problem+json"


class FieldError(TypedDict):
    """One entry of `errors`: the field's path in the request as the client wrote it, and what is wrong with it."""

    field: str
    message: str


class Problem(HTTPException):
    """An error with the response that it gets. Services raise it, or a subclass, with a status and a sentence."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str | None = None,
        errors: Sequence[FieldError] | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.title = title or title_of(status)
        self.errors = list(errors) if errors is not None else None
        self.extra = dict(extra or {})


class Invalid(Problem):
    """400: the request is not valid."""

    def __init__(self, detail: str = "The request is not valid", errors: Sequence[FieldError] = ()) -> None:
        super().__init__(400, detail, errors=errors)

    @classmethod
    def field(cls, field: str, message: str) -> "Invalid":
        return cls(f"{field}: {message}", [{"field": field, "message": message}])


class Unauthorized(Problem):
    """401: no credential, or one that is not valid."""

    def __init__(self, detail: str = "API key is missing or invalid", scheme: str = "ApiKey") -> None:
        super().__init__(401, detail, headers={"WWW-Authenticate": scheme})


class Forbidden(Problem):
    """403: the credential is valid, and does not permit this."""

    def __init__(self, detail: str = "The credential does not permit this") -> None:
        super().__init__(403, detail)


class NotFound(Problem):
    """404: the tenant has no such resource."""

    def __init__(self, detail: str) -> None:
        super().__init__(404, detail)


class Conflict(Problem):
    """409: the state of the resource does not allow this."""

    def __init__(self, detail: str) -> None:
        super().__init__(409, detail)


class QuotaExceeded(Problem):
    """402: the tenant's plan allows no more."""

    def __init__(self, detail: str) -> None:
        super().__init__(402, detail)


class Unavailable(Problem):
    """503: something that the response needs does not answer. retry_after: seconds, where a guess can be made."""

    def __init__(self, detail: str, retry_after: int | None = None) -> None:
        super().__init__(503, detail, headers=None if retry_after is None else {"Retry-After": str(retry_after)})


def title_of(status: int) -> str:
    """The reason phrase of a status in RFC 9110."""
    return TITLES.get(status) or HTTPStatus(status).phrase


def problem_body(problem: HTTPException) -> dict[str, Any]:
    """The members of the problem details of this exception."""
    status = problem.status_code
    section = SECTIONS.get(status)
    body: dict[str, Any] = {
        "type": f"https://tools.ietf.org/html/rfc9110#section-{section}" if section else _type_elsewhere(status),
        "title": problem.title if isinstance(problem, Problem) else title_of(status),
        "status": status,
        "detail": problem.detail,
        "traceId": traceparent(),
    }
    if isinstance(problem, Problem):
        if problem.errors is not None:
            body["errors"] = problem.errors
        body |= problem.extra
    return body


def problem_response(problem: HTTPException) -> JSONResponse:
    return JSONResponse(
        problem_body(problem), problem.status_code, headers=dict(problem.headers or {}), media_type=MEDIA_TYPE
    )


def _type_elsewhere(status: int) -> str:
    return "https://tools.ietf.org/html/rfc6585#section-4" if status == 429 else "about:blank"
