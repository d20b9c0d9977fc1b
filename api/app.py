"""The API as one ASGI application.

A domain is a folder beside this file; its `router.py` is found by name and its `router` mounted. Where a domain needs
something for as long as the application lives (a writer behind the requests, say), it gives its router a lifespan: it
starts after what `app.state` holds has been opened, and ends before that is closed.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from fastapi_swagger import patch_fastapi
from starlette.middleware.cors import CORSMiddleware

from api.auth.directory import TokenDirectory
from api.auth.issuers import ExternalIssuers
from api.auth.tokens import Tokens
from api.benchmark import routes as benchmark
from api.database.engine import Database
from api.gotrue.errors import GoTrueErrors
from api.http import handlers
from api.http.auth import Authenticators, Credentials
from api.http.bodies import BodyLimits
from api.http.limits import Limits, MemoryCounts, RedisCounts
from api.http.openapi import describe
from api.http.requests import Requests
from api.idempotency.middleware import Idempotency
from api.idempotency.service import expiring
from api.keys.directory import KeyDirectory
from api.metering.meter import Meter
from api.users.passwords import Passwords
from configs.settings import (
    ApiSettings,
    AuthSettings,
    BillingSettings,
    DatabaseSettings,
    HistorySettings,
    LimitSettings,
    PathSettings,
    ServingSettings,
)
from serving.client import ServingClient

DOMAINS = Path(__file__).parent
UNLIMITED = ("/health", benchmark.PATH)
WEBHOOK = "/api/billing/webhook"
NOTHING_MADE = ("/api/auth/", "/auth/v1/", "/api/v1/recommend", "/api/v1/similar", WEBHOOK, benchmark.PATH)
"""POST routes on which an `Idempotency-Key` means nothing: they make nothing, or are how one gets a credential."""
EXPOSED_HEADERS = (
    *("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After", "Idempotent-Replayed"),
    *("X-Recommendation-Id", "X-Model-Release", "X-Recommendation-Degraded"),
)
HOT_PREFIX = "/api/v1"


@dataclass(frozen=True)
class Configuration:
    """Every setting that the API reads, from the environment unless given."""

    paths: PathSettings = field(default_factory=PathSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    serving: ServingSettings = field(default_factory=ServingSettings)
    billing: BillingSettings = field(default_factory=BillingSettings)


def create_app(configuration: Configuration | None = None) -> FastAPI:
    """The application.

    Raises MissingSecretError without a JWT secret, FileNotFoundError where no database is known, ValueError for
    settings that cannot be.

    `app.state` holds, while it runs: `configuration`, `database`, `serving`, `keys`, `meter`, `tokens`, `passwords`.
    """
    configuration = configuration or Configuration()
    url = configuration.database.resolve(configuration.paths)
    tokens = Tokens(configuration.auth)
    issuers = ExternalIssuers(configuration.auth.external_issuers, own=configuration.auth.jwt_issuer)
    database = Database(url, configuration.database.pool_min, configuration.database.pool_max)
    keys = KeyDirectory(database)
    meter = Meter(database.pool)
    redis_url = configuration.limits.redis_url
    counts = RedisCounts(redis_url.get_secret_value()) if redis_url else MemoryCounts()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await database.open()
            stack.push_async_callback(database.close)
            app.state.serving = ServingClient(configuration.serving)
            stack.push_async_callback(app.state.serving.close)
            app.state.passwords = Passwords()
            stack.push_async_callback(counts.close)
            stack.push_async_callback(issuers.close)
            await stack.enter_async_context(keys.recording_use())
            await stack.enter_async_context(meter.running())
            await stack.enter_async_context(expiring(database.pool))
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
    for router in _routers():
        app.include_router(router)
    if configuration.api.benchmark_routes:
        app.include_router(benchmark.router)
    handlers.install(app)
    describe(app, NOTHING_MADE)
    patch_fastapi(app, redirect_from_root_to_docs=False)  # /docs with its own script and style: no other host is asked
    # The last one added is the outermost.
    app.add_middleware(Idempotency, database=database, exempt=NOTHING_MADE)
    app.add_middleware(BodyLimits)
    app.add_middleware(
        Credentials,
        authenticators=Authenticators(keys.find, TokenDirectory(tokens, issuers, database).find),
        limits=Limits(counts),
        settings=configuration.limits,
        exempt=UNLIMITED,
        charging_itself=(("POST", WEBHOOK),),  # Stripe signs, and what is not signed counts for its address
    )
    if configuration.api.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=configuration.api.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    app.add_middleware(Requests)
    app.add_middleware(GoTrueErrors)
    return app


def _routers() -> list[APIRouter]:
    domains = sorted(path.parent.name for path in DOMAINS.glob("*/router.py"))
    routers: list[APIRouter] = [import_module(f"api.{domain}.router").router for domain in domains]
    # A path is compared with one router after the other, so the routers with the most requests come first.
    return sorted(routers, key=lambda router: not _is_hot(router))


def _is_hot(router: APIRouter) -> bool:
    return any(isinstance(route, APIRoute) and route.path.startswith(HOT_PREFIX) for route in router.routes)
