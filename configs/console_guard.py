"""Guards the web consoles of operators, which trust everybody who reaches them.

Dagster's console executes what any page in an operator's browser sends it: a mutation as a GET request, with a foreign
`Origin`, under a foreign host name that resolves to this machine (DNS rebinding). MLflow's asks nobody for a password.
The guard is an ASGI middleware that answers only under the console's own names and to its own pages, and, where a
password is set, only after a login.
"""

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from pydantic import Field, SecretStr

from configs.settings import Settings, Words

OPERATOR = "operator"
"""The user name of the login to the consoles. There is one account for an installation."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
READING_METHODS = ("GET", "HEAD")
OWN_PAGES = ("same-origin", "none")
"""Values of `Sec-Fetch-Site` for a request by the console's own page, and for one that the user typed."""
GRAPHQL = "/graphql"
JSON = "application/json"
FORM_TYPES = ("", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded")
"""Types of a body that any site's form can send without being asked for permission first."""
MAX_HEADERS = 100

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class ConsoleSettings(Settings):
    """The guard of the consoles of Dagster and MLflow."""

    hosts: Words = Field(
        default=(), alias="CONSOLE_HOSTS", description="names under which the consoles are reached, beside loopback's"
    )
    password: SecretStr | None = Field(
        default=None, alias="OPERATOR_PASSWORD", min_length=12, description="of the login as `operator`; None: no login"
    )

    @property
    def password_text(self) -> str | None:
        return self.password.get_secret_value() if self.password else None

    @property
    def tracking_environment(self) -> dict[str, str]:
        """The variables by which MLflow's own client logs in; none where there is no login."""
        if self.password_text is None:
            return {}
        return {"MLFLOW_TRACKING_USERNAME": OPERATOR, "MLFLOW_TRACKING_PASSWORD": self.password_text}


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused."""

    status: HTTPStatus
    detail: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True)
class ConsoleRules:
    """What the guard lets through of one console."""

    takes_files: bool = False  # bodies of other types than JSON, except what a form can send
    open_paths: tuple[str, ...] = ()  # answered without a login, to those who read; other machines' checks of health
    closed_paths: tuple[str, ...] = ()  # beginnings of paths that nobody is answered at


class ConsoleGuard:
    """ASGI middleware around a console. It refuses by status 401, 403, 404, 405, 415 or 421 and a line of text."""

    def __init__(
        self,
        app: Application,
        hosts: tuple[str, ...] = (),
        password: str | None = None,
        rules: ConsoleRules = ConsoleRules(),
    ) -> None:
        """
        hosts: names under which the console is reached, beside those of loopback; without ports.
        password: of the login as `operator`; None: there is no login.
        """
        self._rules = rules
        self._app = app
        self._hosts = frozenset(name.lower() for name in (*LOOPBACK_NAMES, *hosts))
        self._password = password

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self.refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.detail})
        else:
            await _answer(send, refusal)

    def refusal(self, scope: Scope) -> Refusal | None:
        """Why this request is refused; None where it is not."""
        headers = _headers(scope)
        if len(scope["headers"]) > MAX_HEADERS or _name(headers.get("host", "")) not in self._hosts:
            return Refusal(HTTPStatus.MISDIRECTED_REQUEST, "This console has another host name")
        is_open = scope.get("method") in READING_METHODS and scope["path"] in self._rules.open_paths
        if (
            self._password is not None
            and not is_open
            and not _logged_in(headers.get("authorization", ""), self._password)
        ):
            challenge = ((b"www-authenticate", b'Basic realm="RecommendAI", charset="UTF-8"'),)
            return Refusal(HTTPStatus.UNAUTHORIZED, "Log in as the operator", challenge)
        if _is_foreign(scope, headers):
            return Refusal(HTTPStatus.FORBIDDEN, "Another site sent this request")
        # Both forms: `/closed/..` is not closed in its plain form, and a console may take it as it is.
        if any(path.startswith(self._rules.closed_paths) for path in (scope["path"].lower(), _plain(scope["path"]))):
            return Refusal(HTTPStatus.NOT_FOUND, "This part of the console is switched off")
        return None if scope["type"] == "websocket" else _refused_form(scope, headers, self._rules)


def _is_foreign(scope: Scope, headers: dict[str, str]) -> bool:
    """Whether a page of another site sent this. A link to a page of the console may be followed from anywhere."""
    origin = headers.get("origin")
    if origin is not None and origin.lower().partition("://")[2] != headers["host"].lower():
        return True
    if headers.get("sec-fetch-site", "none") in OWN_PAGES:
        return False
    is_link = headers.get("sec-fetch-mode") == "navigate" and scope.get("method") == "GET"
    return not is_link or _is_graphql(scope)


def _refused_form(scope: Scope, headers: dict[str, str], rules: ConsoleRules) -> Refusal | None:
    """Refuses GraphQL by GET, and bodies of types that any site's form can send."""
    if scope["method"] in READING_METHODS and _is_graphql(scope) and b"query" in parse_qs(scope["query_string"]):
        return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Send GraphQL by POST", ((b"allow", b"POST"),))
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_refused = content_type != JSON
    if rules.takes_files:  # a form sends POST and nothing else
        is_refused = scope["method"] == "POST" and content_type in FORM_TYPES and _has_body(headers)
    if scope["method"] not in SAFE_METHODS and is_refused:
        return Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send {JSON}")
    return None


def _headers(scope: Scope) -> dict[str, str]:
    """The headers by lower-case name; the last of several, so that a repeated one cannot hide behind the first."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _name(host: str) -> str:
    """The host name of a `Host` header without its port, in lower case."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _plain(path: str) -> str:
    """The path as the strictest reader takes it: lower case, without empty and relative parts."""
    parts: list[str] = []
    for part in path.lower().split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _has_body(headers: dict[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_graphql(scope: Scope) -> bool:
    return bool(scope["path"].rstrip("/").endswith(GRAPHQL))


def _logged_in(authorization: str, password: str) -> bool:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, f"{OPERATOR}:{password}".encode())


async def _answer(send: Send, refusal: Refusal) -> None:
    body = f"{refusal.detail}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": int(refusal.status), "headers": [*headers, *refusal.headers]})
    await send({"type": "http.response.body", "body": body})
