"""Executes one operation and builds the response."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import strawberry
from fastapi import FastAPI
from graphql import GraphQLError
from strawberry.exceptions import MissingQueryError
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionContext

from api.graphql import documents
from api.graphql.errors import formatted, problem_of
from api.graphql.operations import Context, Mutation, Query, recommendation_extensions
from api.graphql.schemas import DATE_TIME, GraphQLRequest
from api.http.problems import Invalid, Problem, Unauthorized, problem_body
from api.http.slices import turn

_HINT = re.compile(r" Did you mean .*\?$", re.DOTALL)
"""What graphql-core adds to an error about an unknown name: names of the schema, which needs a credential."""
LARGE_DOCUMENT = 500
"""Longer documents wait for their turn before each step that takes a few milliseconds."""


class _Bounds(SchemaExtension):
    """Refuses documents that exceed the bounds, and counts each root field as a request against the rate limit."""

    async def on_operation(self) -> AsyncIterator[None]:
        query, context = self.execution_context.query or "", self.execution_context.context
        bounds = documents.WITHOUT_CREDENTIAL if context.principal is None else documents.WITH_CREDENTIAL
        if context.principal is None and documents.asks_for_schema(query):
            raise Unauthorized("The schema is shown to callers with a credential")
        documents.check_text(query, bounds)
        self.execution_context.parse_options["max_tokens"] = bounds.tokens
        self._bounds, self._is_large = bounds, len(query) > LARGE_DOCUMENT
        yield

    async def on_parse(self) -> AsyncIterator[None]:
        await self._turn()
        yield
        if (document := self.execution_context.graphql_document) is not None:
            documents.unlink_tokens(document)
            try:
                documents.check(document, self.execution_context.context.operation_name, self._bounds)
            except Invalid as refused:
                # The frames of a refusal are a ring, which should not hold the document until the next collection.
                self.execution_context.graphql_document = document = None
                raise refused.with_traceback(None) from None

    async def on_validate(self) -> AsyncIterator[None]:
        await self._turn()
        yield

    async def on_execute(self) -> AsyncIterator[None]:
        running = self.execution_context
        if (document := running.graphql_document) is not None:
            further = documents.root_fields(document, running.context.operation_name) - 1
            if further > 0 and (refusal := await running.context.count_requests(further)) is not None:
                raise refusal
        await self._turn()
        yield

    async def _turn(self) -> None:
        if self._is_large:
            await turn()


class _Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log nothing: `problem_of` logs unexpected exceptions, and other errors may quote what users sent."""


schema = _Schema(
    query=Query,
    mutation=Mutation,
    extensions=[_Bounds],
    config=StrawberryConfig(scalar_map={datetime: DATE_TIME}),
)


@dataclass(frozen=True)
class Executed:
    """A response: GraphQL's where the operation was run, otherwise a problem that GraphQL clients can read too."""

    body: dict[str, Any]
    problem: Problem | None = None

    @property
    def statuses(self) -> set[int]:
        """The statuses of the fields that failed."""
        return {error["extensions"]["status"] for error in self.body.get("errors", ())}


async def execute(app: FastAPI, request: GraphQLRequest, context: Context) -> Executed:
    """Execute the operation. Where the document or its variables are not valid, no field is executed."""
    try:
        result = await schema.execute(
            request.query,
            variable_values=request.variables,
            context_value=context,
            operation_name=context.operation_name,
        )
    except (MissingQueryError, CannotGetOperationTypeError, InvalidOperationTypeError):
        problem = Invalid.field("operationName", "names none of the document's operations that could be run")
        return _refused(app, [GraphQLError(problem.detail, original_error=problem)])
    errors = result.errors or []
    if context.principal is None:
        for error in errors:
            error.message = _HINT.sub("", error.message)
    if result.data is None:
        return _refused(app, errors)
    body: dict[str, Any] = {"data": result.data}
    if errors:
        body["errors"] = [formatted(app, error) for error in errors]
    if recommendations := recommendation_extensions(context):
        body["extensions"] = {"recommendations": recommendations}
    return Executed(body)


def _refused(app: FastAPI, errors: list[GraphQLError]) -> Executed:
    """A problem whose `errors` are also valid as the `errors` of GraphQL."""
    problem = problem_of(app, errors[0])
    entries = [{"field": "query", **formatted(app, error)} for error in errors]
    for error in errors:
        _drop_frames(error)
    return Executed({**problem_body(problem), "errors": entries}, problem)


def _drop_frames(error: BaseException | None) -> None:
    """Drop the frames that an error passed. They hold the document and the error itself, which makes a ring of them."""
    while error is not None:
        error.__traceback__ = None
        error = getattr(error, "original_error", None) or error.__cause__
