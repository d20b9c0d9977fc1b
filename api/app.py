"""The API as one ASGI application.

Each folder beside this file is a domain. The `router` of its `router.py` is found by the file's name and included, and
so are the `direct_routes` that some have beside it. A domain that needs something for as long as the application runs,
such as a periodic task, gives its router a lifespan. That lifespan starts after everything in `app.state` has been
opened, and ends before it is closed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from fastapi_swagger import patch_fastapi
from starlette.middleware.cors import CORSMiddleware

from api.auth.directory import TokenDirectory
from api.auth.issuers import ExternalIssuers
from api.auth.signing_keys import SigningKeys
from api.auth.tokens import Tokens
from api.benchmark import routes as benchmark
from api.database.engine import Database
from api.gotrue.errors import GoTrueErrors
from api.http import handlers
from api.http.authentication import Authentication, Authenticators
from api.http.bodies import BodyLimits
from api.http.client import ClientAddress
from api.http.direct_routes import DirectRoutes
from api.http.limits import RateLimiter
from api.http.openapi import install_openapi
from api.http.requests import RequestMiddleware
from api.http.window_counters import MemoryWindowCounter, RedisWindowCounter
from api.idempotency.middleware import Idempotency, never_recorded
from api.idempotency.service import expiring
from api.keys.directory import KeyDirectory
from api.metering.meter import Meter
from api.retention.service import deleting_expired_rows
from api.tenants.leftovers import sweeping
from api.users.passwords import Passwords
from configs.api import ApiSettings, LimitSettings, ServerSettings
from configs.auth import AuthSettings
from configs.billing import BillingSettings
from configs.database import LimitsOfRequests
from configs.history import HistorySettings
from configs.journal import JournalSettings
from configs.mail import MailSettings
from configs.postgres import DatabaseSettings
from configs.retention import RetentionSettings
from configs.serving import ServingSettings
from configs.settings import PathSettings
from configs.spans import SpanSettings, recording
from serving.client import ServingClient

DOMAINS = Path(__file__).parent
NOT_COUNTED = ("/health", "/health/ready")
WEBHOOK = "/api/billing/webhook"
NOT_IDEMPOTENT = (
    *("/api/auth/", "/auth/v1/", "/api/v1/recommend", "/api/v1/similar", "/api/v1/impressions"),
    *(WEBHOOK, benchmark.PATH),
)
"""Beginnings of POST paths that ignore `Idempotency-Key`, because they create nothing, or nothing twice, or issue
credentials.
"""
CALLING_OUT = ("/api/billing/checkout", "/api/billing/portal")
"""Paths of POST routes that ask Stripe. No connection is held for their `Idempotency-Key` meanwhile."""
EXPOSED_HEADERS = (
    *("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After", "Idempotent-Replayed"),
    *("X-Recommendation-Id", "X-Model-Release", "X-Recommendation-Degraded", "X-Scenario"),
)
HOT_PREFIX = "/api/v1"


@dataclass(frozen=True)
class Configuration:
    """All settings of the API. Groups that are not given are read from the environment."""

    paths: PathSettings = field(default_factory=PathSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    connections: LimitsOfRequests = field(default_factory=LimitsOfRequests)
    api: ApiSettings = field(default_factory=ApiSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    serving: ServingSettings = field(default_factory=ServingSettings)
    billing: BillingSettings = field(default_factory=BillingSettings)
    journal: JournalSettings = field(default_factory=JournalSettings)
    mail: MailSettings = field(default_factory=MailSettings)
    spans: SpanSettings = field(default_factory=SpanSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)


def create_app(configuration: Configuration | None = None) -> FastAPI:
    """The application.

    Raises MissingSecretError without a key that signs tokens, FileNotFoundError without a database URL, and ValueError
    for settings that contradict each other.

    `app.state` holds, while it runs: `configuration`, `database`, `serving`, `keys`, `meter`, `tokens`, `passwords`,
    `client_address`, `origin`, `login_failures`.
    """
    configuration = configuration or Configuration()
    url = configuration.connections.limited(configuration.database.resolve(configuration.paths))
    tokens = Tokens(configuration.auth, SigningKeys(configuration.auth, configuration.paths))
    issuers = ExternalIssuers(configuration.auth.external_issuers, own=configuration.auth.jwt_issuer)
    database = Database(url, configuration.database.pool_min, configuration.database.pool_max)
    keys = KeyDirectory(database)
    meter = Meter(database.pool)
    redis_url = configuration.limits.redis_url
    if configuration.server.workers > 1 and redis_url is None:
        raise ValueError("API_WORKERS needs REDIS_URL: without it each process would count rate limits by itself")
    counter = RedisWindowCounter(redis_url.get_secret_value()) if redis_url else MemoryWindowCounter()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            spans = ExitStack()
            spans.enter_context(recording("api", configuration.spans))
            stack.push_async_callback(asyncio.to_thread, spans.close)  # it sends what waits
            await database.open()
            stack.push_async_callback(database.close)
            app.state.serving = ServingClient(configuration.serving.with_secret(configuration.paths))
            stack.push_async_callback(app.state.serving.close)
            app.state.passwords = Passwords()
            await counter.open()
            stack.push_async_callback(counter.close)
            stack.push_async_callback(issuers.close)
            for running in (
                *(tokens.keys.watching(), keys.running(), meter.running()),
                *(expiring(database.pool), sweeping(database)),
                deleting_expired_rows(database.pool, configuration.retention),
            ):
                await stack.enter_async_context(running)
            yield

    app = FastAPI(
        title="RecommendAI",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.configuration = configuration
    app.state.database = database
    app.state.keys = keys
    app.state.meter = meter
    app.state.tokens = tokens
    app.state.client_address = ClientAddress(configuration.limits.trusted_proxies)
    domains = _domains()
    for domain in domains:
        app.include_router(domain.router)
    if configuration.api.benchmark_routes:
        app.include_router(benchmark.router)
    handlers.install(app)
    install_openapi(app, NOT_IDEMPOTENT, never_recorded)
    patch_fastapi(app, redirect_from_root_to_docs=False)  # /docs loads its script and style from this host
    # The middleware that is added last is the outermost.
    direct = [route for domain in domains for route in getattr(domain, "direct_routes", ())]
    app.add_middleware(
        DirectRoutes, routes=direct, general=[route for domain in domains for route in domain.router.routes]
    )
    app.add_middleware(Idempotency, database=database, exempt=NOT_IDEMPOTENT, calling_out=CALLING_OUT)
    app.add_middleware(BodyLimits)
    app.add_middleware(
        Authentication,
        authenticators=Authenticators(keys.find, TokenDirectory(tokens, issuers, database).find, keys.is_doubtful),
        limiter=RateLimiter(configuration.limits, counter, app.state.client_address),
        exempt=(*NOT_COUNTED, benchmark.PATH) if configuration.api.benchmark_routes else NOT_COUNTED,
        counted_by_route=(("POST", WEBHOOK),),  # only events without a valid signature count, for the client's address
    )
    if configuration.api.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=configuration.api.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    app.add_middleware(RequestMiddleware)
    app.add_middleware(GoTrueErrors)
    return app


def _domains() -> list[ModuleType]:
    """The `router.py` of every domain."""
    names = sorted(path.parent.name for path in DOMAINS.glob("*/router.py"))
    found = [import_module(f"api.{name}.router") for name in names]
    # A path is compared with one router after the other, so the routers with the most requests come first.
    return sorted(found, key=lambda domain: not _is_hot(domain.router))


def _is_hot(router: APIRouter) -> bool:
    return any(isinstance(route, APIRoute) and route.path.startswith(HOT_PREFIX) for route in router.routes)
