"""`/graphql`."""

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.routing import APIRoute
from msgspec import UNSET, Raw, UnsetType
from starlette.routing import Match
from starlette.types import Scope
from strawberry.http.ides import get_graphql_ide_html

from api.database.session import CurrentDatabase
from api.graphql.operations import Context
from api.graphql.schemas import GraphQLAnswer, GraphQLRequest
from api.graphql.service import execute
from api.http.authentication import COUNT_REQUESTS
from api.http.bodies import MAX_BODY_VALUES, too_many_values, values_in
from api.http.principal import principal_of
from api.http.problems import MEDIA_TYPE
from api.idempotency.middleware import do_not_record, is_final
from api.metering.dependencies import MeteredRequest, meter_request


class _Request(msgspec.Struct):
    """The body, with all but the document not decoded yet."""

    query: Raw | UnsetType = UNSET
    variables: Raw | UnsetType = UNSET
    operation_name: Raw | UnsetType = msgspec.field(default=UNSET, name="operationName")


class _DocumentRoute(APIRoute):
    """Bounds the JSON values of bodies, apart from what a document's text looks like."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_document(request: Request) -> Response:
            return await handle(_DocumentRequest(request.scope, request.receive))

        return handle_document


class _DocumentRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        if values_in(body) <= MAX_BODY_VALUES:
            return json.loads(body)
        try:
            found = msgspec.json.decode(body, type=_Request)
        except msgspec.DecodeError as error:
            raise too_many_values() from error
        parts = {"query": found.query, "variables": found.variables, "operationName": found.operation_name}
        given = {name: bytes(part) for name, part in parts.items() if part is not UNSET}
        if any(values_in(part) > MAX_BODY_VALUES for part in given.values() if not part.startswith(b'"')):
            raise too_many_values()
        return {name: json.loads(part) for name, part in given.items()}


router = APIRouter(tags=["graphql"], route_class=_DocumentRoute)


async def _context(body: GraphQLRequest, request: Request, database: CurrentDatabase) -> Context:
    app, state = request.app, request.app.state
    return Context(
        principal=principal_of(request),
        count_requests=request.scope["state"][COUNT_REQUESTS],
        meter=state.meter,
        pool=database.pool,
        recommendations=state.recommendations,
        version=app.version,
        operation_name=body.operation_name or None,
    )


@router.post(
    "/graphql",
    summary="Run a GraphQL operation",
    response_model=GraphQLAnswer,
    openapi_extra={"security": [{}, {"ApiKey": []}]},
)
async def execute_graphql(
    body: GraphQLRequest, request: Request, context: Annotated[Context, Depends(_context)]
) -> Response:
    """The central operations of REST as one schema. `getApiVersion` and `getHealth` are public; others need an API key.

    Each field of `Query` and `Mutation` counts as one request, and each that succeeds is metered as one. A document
    that cannot be run is a 400. Where a field fails, the others are answered, and `errors` has its problem as of REST.
    """
    executed = await execute(request.app, body, context)
    if context.terms is not None:
        usage = MeteredRequest(context.meter, context.terms)
        usage.count(context.units)
        meter_request(request, usage)
    if not (context.has_written and all(is_final(status) for status in executed.statuses)):
        do_not_record(request)
    if executed.problem is None:
        return JSONResponse(executed.body)
    headers = dict(executed.problem.headers or {})
    return JSONResponse(executed.body, executed.problem.status_code, headers, MEDIA_TYPE)


class _Development(APIRoute):
    """A route that exists only where the setting `graphiql` is on."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["app"].state.configuration.api.graphiql:
            return super().matches(scope)
        return Match.NONE, {}


async def graphiql() -> HTMLResponse:
    return HTMLResponse(get_graphql_ide_html("graphiql"))


router.add_api_route("/graphql", graphiql, methods=["GET"], include_in_schema=False, route_class_override=_Development)
