"""The OpenAPI document: FastAPI's, with the errors that the routes really answer."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.edge.problems import MEDIA_TYPE, title_of

PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "traceId"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "traceId": {"type": "string", "description": "the W3C traceparent of the request"},
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
PUBLIC = ("/health", "/api/auth/", "/auth/v1/token", "/auth/v1/signup")
FRAMEWORKS_OWN = "Validation Error"
"""How FastAPI describes a 422 that no route here answers."""
EVERYWHERE = (400, 401, 429, 500)


def describe(app: FastAPI) -> None:
    """Have `/openapi.json` describe problems instead of FastAPI's own validation errors."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = PROBLEM
    schema["components"]["securitySchemes"] = {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "Token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    }
    schema["security"] = [{"ApiKey": []}, {"Token": []}]
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            if path.startswith(PUBLIC):
                operation["security"] = []
            responses = operation["responses"]
            if responses.get("422", {}).get("description") == FRAMEWORKS_OWN:
                del responses["422"]
            if not path.startswith("/health"):
                for status in EVERYWHERE:
                    responses.setdefault(str(status), _problem(status))
    return schema


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": title_of(status),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
