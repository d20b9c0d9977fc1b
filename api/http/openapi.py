"""The OpenAPI document: FastAPI's, completed with the credentials, errors and examples of each route."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from starlette.routing import Route

from api.http.examples import example_of
from api.http.principal import required_scheme
from api.http.problems import MEDIA_TYPE, title_of

PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "traceId"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "examples": ["about:blank"]},
        "title": {"type": "string", "examples": ["Bad Request"]},
        "status": {"type": "integer", "examples": [400]},
        "detail": {"type": "string", "examples": ["count: Input should be less than or equal to 100"]},
        "traceId": {
            "type": "string",
            "description": "the W3C traceparent of the request",
            "examples": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
        },
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
FASTAPI_VALIDATION_ERROR = "Validation Error"
"""FastAPI's description of its own 422, which no route answers."""
ANY_ROUTE = (400, 429, 500, 503)
UNCOUNTED = "/health"
OPENAPI_PATH = "/openapi.json"
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Sent again within 24 hours with the same body, the request has no second effect and gets the first "
    "answer; with another body it is a 409",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "example": "order-4711",
}


def install_openapi(
    app: FastAPI, not_idempotent: tuple[str, ...] = (), never_recorded: Callable[..., Any] | None = None
) -> None:
    """Serve the completed document at `OPENAPI_PATH`.

    Args:
        not_idempotent: beginnings of the paths whose POST ignores `Idempotency-Key`.
        never_recorded: the dependency of all other routes whose POST ignores it.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, not_idempotent, never_recorded)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    encoded: bytes | None = None
    building = asyncio.Lock()

    async def serve(request: Request) -> Response:
        nonlocal encoded
        if encoded is None:
            async with building:
                # In a thread, because the document takes a tenth of a second to build.
                encoded = encoded or await asyncio.to_thread(lambda: msgspec.json.encode(app.openapi()))
        return Response(encoded, media_type="application/json")

    # Before FastAPI's own route, which encodes the whole document for every request.
    app.router.routes.insert(0, Route(OPENAPI_PATH, serve, include_in_schema=False))


def _document(
    app: FastAPI, not_idempotent: tuple[str, ...], never_recorded: Callable[..., Any] | None
) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = PROBLEM
    schema["components"]["securitySchemes"] = {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "Token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    }
    calls = _calls_of_routes(app)
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            schemes = sorted({name for call in calls[method, path] if (name := required_scheme(call))})
            operation.setdefault("security", [{name: []} for name in schemes])
            ignored = path.startswith(not_idempotent) or never_recorded in calls[method, path]
            if method == "post" and operation["security"] and not ignored:
                operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
                operation["responses"].setdefault("409", {})
            _add_errors(operation, any_route=() if path.startswith(UNCOUNTED) else ANY_ROUTE)
            _add_examples(operation, schemas)
    return schema


def _calls_of_routes(app: FastAPI) -> dict[tuple[str, str], list[Any]]:
    """The endpoint and dependencies of each route, by method and path.

    Where they require several security schemes, one of them is enough.
    """
    found: dict[tuple[str, str], list[Any]] = {}
    for route in iter_route_contexts(app.routes):
        if isinstance(dependant := getattr(route, "dependant", None), Dependant):
            calls = list(_calls(dependant))
            found |= {(method.lower(), str(route.path_format)): calls for method in route.methods or ()}
    return found


def _calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for part in dependant.dependencies:
        yield from _calls(part)


def _add_errors(operation: dict[str, Any], any_route: tuple[int, ...]) -> None:
    """Describe each error as a problem: those that the route declares, and those that middleware answers."""
    responses = operation["responses"]
    if responses.get("422", {}).get("description") == FASTAPI_VALIDATION_ERROR:
        del responses["422"]
    guarded = (401, 403) if operation["security"] else ()
    too_large = (413,) if "requestBody" in operation else ()
    for status in sorted({*any_route, *guarded, *too_large}):
        responses.setdefault(str(status), {})
    for status, response in responses.items():
        if int(status) >= 400:
            response.setdefault("description", title_of(int(status)))
            response.setdefault("content", {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}})
    operation["responses"] = dict(sorted(responses.items()))


def _add_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Add an example to each request body and response that has none."""
    contents = [operation.get("requestBody", {}).get("content", {})]
    contents += [
        response.get("content", {}) for status, response in operation["responses"].items() if int(status) < 400
    ]
    for content in contents:
        for media in content.values():
            if media.get("schema") and "example" not in media and "examples" not in media:
                media["example"] = example_of(media["schema"], schemas)
