"""The outermost layer: traces and logs each request, adds headers, and answers exceptions that nothing else caught."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http import tracing
from api.http.authentication import RESPONSE_HEADERS, UNREADABLE
from api.http.figures import observe_request
from api.http.handlers import database_problem
from api.http.headers import SECURITY, header
from api.http.paths import decode_path, is_readable
from api.http.principal import STATE_KEY
from api.http.problems import Invalid, Problem, problem_response

ON_RESPONSE_START = "answered"
"""Key of the request's state: a callable that gets the first message of the response."""

log = structlog.get_logger("api.access")
QUIET = ("/health", "/health/ready", "/benchmark/noop")


class RequestMiddleware:
    """ASGI middleware. Log lines name the route's template, because the path itself may contain a user's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        tracing.begin(header(scope, b"traceparent"))
        state = scope.setdefault("state", {})
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if (on_start := state.get(ON_RESPONSE_START)) is not None:
                    on_start(message)
                message["headers"] = [*message["headers"], *SECURITY, *state.get(RESPONSE_HEADERS, ())]
            await send(message)

        try:
            if not (decode_path(scope) and is_readable(scope["query_string"])):
                state[UNREADABLE] = Invalid("The path or query is not valid UTF-8")
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            problem = database_problem(scope["app"], error)
            if problem is None:
                log.exception("unhandled", method=scope["method"], route=_route(scope))
                problem = Problem(500, "The server failed on this request; its log has the reason under the trace id")
            if status:
                raise  # the response has begun, so the server can only close the connection
            await problem_response(problem)(scope, receive, send_with_headers)
        finally:
            self._report(scope, status, time.perf_counter() - started)

    def _report(self, scope: Scope, status: int, seconds: float) -> None:
        method, route, principal = scope["method"], _route(scope), scope["state"].get(STATE_KEY)
        tenant_id = principal.tenant.id if principal else None
        observe_request(method, route, status, seconds)
        tracing.end(method, route, status, tenant_id)
        if scope["path"] in QUIET and status < 400:
            return
        log.info("request", method=method, route=route, status=status, ms=round(seconds * 1000, 2), tenant=tenant_id)


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return getattr(route, "path", "") if route else ""
