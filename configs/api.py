"""The API: its process, its HTTP server, and how many requests it takes from whom."""

from pydantic import Field, SecretStr

from configs.settings import Settings, Words


class ApiSettings(Settings):
    """The API process itself."""

    cors_origins: Words = Field(
        default=(), alias="CORS_ORIGINS", description="empty: browsers refuse requests from other sites"
    )
    graphiql: bool = Field(default=False, alias="GRAPHIQL", description="for development: an editor at GET /graphql")
    benchmark_routes: bool = Field(
        default=False, alias="BENCHMARK_ROUTES", description="adds a no-op route to measure against"
    )


class ServerSettings(Settings):
    """The API's HTTP server: its processes, and what it waits for and takes of a connection."""

    workers: int = Field(
        default=1, alias="API_WORKERS", ge=1, description="processes of the API; several need `REDIS_URL`"
    )
    max_connections: int = Field(
        default=2_000, alias="API_MAX_CONNECTIONS", ge=1, description="of a process; one that waits makes room"
    )
    max_header_bytes: int = Field(
        default=32 * 1024, alias="API_MAX_HEADER_BYTES", ge=1_024, description="of a request: 431"
    )
    header_seconds: float = Field(
        default=10.0, alias="API_HEADER_SECONDS", gt=0, description="within which a header must arrive: 408"
    )
    body_seconds: float = Field(
        default=10.0, alias="API_BODY_SECONDS", gt=0, description="of a window in which a body must make progress: 408"
    )
    response_seconds: float = Field(
        default=10.0, alias="API_RESPONSE_SECONDS", gt=0, description="in which a peer must read some of its response"
    )
    min_bytes_per_second: int = Field(
        default=1_024, alias="API_MIN_BYTES_PER_SECOND", ge=1, description="what counts as progress in these windows"
    )
    idle_seconds: int = Field(
        default=5, alias="API_IDLE_SECONDS", ge=1, description="that a connection is kept after a response"
    )


class LimitSettings(Settings):
    """Requests a minute, by kind of caller. `REDIS_URL` shares the counts among API processes."""

    per_key: int = Field(
        default=1_000, alias="RATE_LIMIT_KEY", ge=1, description="of an API key without a limit of its own"
    )
    per_jwt: int = Field(default=200, alias="RATE_LIMIT_JWT", ge=1, description="of a user with a token")
    per_ip: int = Field(default=60, alias="RATE_LIMIT_IP", ge=1, description="of an address without a valid credential")
    redis_url: SecretStr | None = Field(
        default=None, alias="REDIS_URL", description="where counts are kept; None: in each process"
    )
    trusted_proxies: Words = Field(
        default=(), alias="TRUSTED_PROXIES", description="addresses or networks whose `X-Forwarded-For` is believed"
    )
