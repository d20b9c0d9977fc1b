"""Settings: one frozen class per concern, which reads the environment when it is constructed and never on import.

The modules of this package:

    settings    all settings, by concern                 issuers     external identity providers (part of settings)
    database    roles and limits of connections
    plans       subscription plans (`plans.yaml`)        plugins     model families of other packages
    logging     structured logs                          files       files and folders that appear whole or not at all
    mail        the SMTP server                          tenant_pipeline   what tenants set of their pipelines
    memory      garbage collection of servers            priority    low priority for the background
    journal     what a restore must not undo             exports     files that administrators ask for
    health_check   whether a program answers             retention   how long what grows is kept
    compute     where heavy steps run
    storage     where files are kept; in an object store: state_settings, state_check, object_storage, object_folders,
                buckets, fetched_files, advisory_locks
    local/      the processes of one machine: demo, PostgreSQL
    deploy/     image, units and proxies of an installation      observability/   dashboard and alert rules
    models/, search/, datasets/                          YAML: hyper-parameters, search spaces, data sets
"""

import json
import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from configs.files import kept_secret
from configs.issuers import ExternalIssuer

Words = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(lambda value: tuple(value.replace(",", " ").split()) if isinstance(value, str) else value),
]
"""Several words in one variable, separated by commas or spaces."""


def _secrets(value: object) -> object:
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else tuple(value.replace(",", " ").split())


Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_secrets)]
"""Several secrets in one variable, separated by commas or spaces; or a JSON list, where secrets contain these."""

LOOPBACK = "127.0.0.1"
OPERATOR = "operator"
"""The user name of the login to the consoles. There is one account for an installation."""


class Settings(BaseSettings):
    """Base of every settings class: frozen, validates its own fields, ignores other variables."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True)


class PathSettings(Settings):
    """Where the platform keeps its state. Every path is derived from one folder, so that one variable moves all."""

    state_dir: Path = Field(
        default=Path(".recommendai"), alias="RECOMMENDAI_STATE_DIR", description="folder of everything that is kept"
    )

    @property
    def root(self) -> Path:
        return self.state_dir.absolute()

    @property
    def lake(self) -> Path:
        """Parquet exports of the database, by tenant and day of ingestion."""
        return self.root / "lake"

    @property
    def features(self) -> Path:
        """Feature snapshots by tenant, which models train on."""
        return self.root / "features"

    @property
    def models(self) -> Path:
        """The work folder of training runs. Registered models are in MLflow."""
        return self.root / "models"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    @property
    def dagster(self) -> Path:
        return self.root / "dagster"

    @property
    def bentoml(self) -> Path:
        return self.root / "bentoml"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def database_url_file(self) -> Path:
        """The file (mode 0600) in which the bundled PostgreSQL's process writes its URL, for the API and pipelines."""
        return self.root / "database.url"

    @property
    def database_owner_url_file(self) -> Path:
        """The same for the role that owns the tables, which migrations use."""
        return self.root / "database-owner.url"

    @property
    def serving_secret_file(self) -> Path:
        """The file (mode 0600) with the secret that the API sends to the model server."""
        return self.root / "serving.secret"

    @property
    def ray_token_file(self) -> Path:
        """The file (mode 0600) with the token of the Ray cluster, which all of its machines hold."""
        return self.root / "ray.token"

    @property
    def signing_keys_file(self) -> Path:
        """The file (mode 0600) to which `python -m api rotate-signing-key` adds keys."""
        return self.root / "signing-keys" / "keys.json"

    @property
    def journal(self) -> Path:
        """Erasures and revoked keys, which a restore of the database must not undo (`configs.journal`)."""
        return self.root / "journal"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def exports(self) -> Path:
        """Files of rows that administrators asked for, by tenant. The pipeline writes them, the API hands them out."""
        return self.root / "exports"

    @property
    def generation(self) -> Path:
        """What a running generation hands to its tasks, and they to it. Machines that share tasks share it."""
        return self.root / "generation"

    @property
    def rejects(self) -> Path:
        """Rows that imports rejected, one file per import."""
        return self.root / "rejects"


class DatabaseSettings(Settings):
    """PostgreSQL. Without `DATABASE_URL`, the bundled server's URL is read from the state folder."""

    url: SecretStr | None = Field(default=None, alias="DATABASE_URL", description="postgresql://...")
    owner_url: SecretStr | None = Field(
        default=None,
        alias="DATABASE_OWNER_URL",
        description="of the role that owns the tables, which `migrate` uses; None: that of `DATABASE_URL`",
    )
    pool_min: int = Field(default=2, alias="DATABASE_POOL_MIN", ge=1, description="connections that stay open")
    pool_max: int = Field(default=16, alias="DATABASE_POOL_MAX", ge=1, description="bound on connections of a process")

    def resolve(self, paths: PathSettings) -> str:
        """The libpq URL to connect to. Raises FileNotFoundError with advice when no server is known."""
        if self.url is not None:
            return self.url.get_secret_value()
        if not paths.database_url_file.exists():
            raise FileNotFoundError(
                f"no DATABASE_URL is set and {paths.database_url_file} does not exist: "
                "run `make demo`, start `python -m api postgres`, or set DATABASE_URL"
            )
        return paths.database_url_file.read_text().strip()

    def resolve_owner(self, paths: PathSettings) -> str:
        """The libpq URL of the role that owns the tables. Raises FileNotFoundError as `resolve` does."""
        if self.owner_url is not None:
            return self.owner_url.get_secret_value()
        if self.url is None and paths.database_owner_url_file.exists():
            return paths.database_owner_url_file.read_text().strip()
        return self.resolve(paths)


class PostgresSettings(Settings):
    """The bundled PostgreSQL."""

    shared_buffers: str = Field(
        default="256MB", alias="POSTGRES_SHARED_BUFFERS", description="memory of its cache of pages"
    )
    options: str = Field(default="", alias="POSTGRES_OPTIONS", description="more settings: `name=value name=value`")
    programs: Path | None = Field(
        default=None,
        alias="POSTGRES_PROGRAMS",
        description="folder of `pg_dump` and `pg_restore` for backups; None: those of the bundled server",
    )


class PortSettings(Settings):
    """Addresses of the processes that run on one machine. All listen on loopback unless a setting says otherwise."""

    host: str = Field(default=LOOPBACK, alias="BIND_HOST", description="address of the API, and of nothing else")
    serving_host: str = Field(default=LOOPBACK, alias="SERVING_HOST", description="address of the model server")
    dagster_host: str = Field(
        default=LOOPBACK, alias="DAGSTER_HOST", description="beyond loopback only with OPERATOR_PASSWORD"
    )
    mlflow_host: str = Field(
        default=LOOPBACK, alias="MLFLOW_HOST", description="beyond loopback only with OPERATOR_PASSWORD"
    )
    api: int = Field(default=8080, alias="API_PORT", description="of the API")
    serving: int = Field(default=3000, alias="SERVING_PORT", description="of the model server")
    dagster: int = Field(default=3001, alias="DAGSTER_PORT", description="of Dagster's console")
    mlflow: int = Field(default=5000, alias="MLFLOW_PORT", description="of MLflow")
    stripe: int = Field(default=3002, alias="STRIPE_PORT", description="of the demo's stand-in for Stripe")
    metrics_host: str = Field(default=LOOPBACK, alias="METRICS_HOST", description="address of the API's metrics")
    metrics: int | None = Field(
        default=None, alias="METRICS_PORT", description="of the API's metrics; None: off, and in the demo a free port"
    )
    postgres: int | None = Field(
        default=None, alias="POSTGRES_PORT", description="None: a free port, which is chosen once and kept"
    )

    def host_of(self, program: str) -> str:
        """The address on which a program listens."""
        hosts = {
            "api": self.host,
            "serving": self.serving_host,
            "dagster": self.dagster_host,
            "mlflow": self.mlflow_host,
            "metrics": self.metrics_host,
        }
        return hosts.get(program, LOOPBACK)

    def url(self, program: str) -> str:
        """The URL of a program for a client on this machine."""
        host = self.host_of(program)
        reached = {"0.0.0.0": LOOPBACK, "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"http://{reached}:{getattr(self, program)}"

    def beyond_loopback(self, program: str) -> bool:
        """Whether other machines can reach a program."""
        try:
            return not ip_address(self.host_of(program)).is_loopback
        except ValueError:  # a name
            return self.host_of(program) != "localhost"


class ConsoleSettings(Settings):
    """The guard of the consoles of Dagster and MLflow (`configs.console_guard`)."""

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


class HistorySettings(Settings):
    """Bounds on a user's history, the same for training and for requests."""

    max_events: int = Field(default=200, alias="HISTORY_MAX_EVENTS", ge=1, description="newest events a model sees")
    max_seen: int = Field(default=2_000, alias="HISTORY_MAX_SEEN", ge=1, description="newest items `excludeSeen` drops")

    @property
    def max_scanned(self) -> int:
        """Newest events that are read to find a user's seen items. It bounds the read of the busiest user."""
        return max(self.max_events, self.max_seen * 10)


class ServingSettings(Settings):
    """How the API reaches the model server, and how the model server watches for releases."""

    url: str = Field(
        default="http://127.0.0.1:3000", alias="SERVING_URL", description="where the API reaches the model server"
    )
    patience_seconds: float = Field(
        default=0.14,
        alias="SERVING_PATIENCE_SECONDS",
        gt=0,
        description="that a caller waits for the models before popularity answers, which takes up to 0.1 s more",
    )
    max_patience_seconds: float = Field(
        default=0.0,
        alias="SERVING_MAX_PATIENCE_SECONDS",
        ge=0,
        description="up to which patience rises where the model server has lately needed more than a third of it; by "
        "default it does not rise",
    )
    timeout_seconds: float = Field(
        default=2.0,
        alias="SERVING_TIMEOUT_SECONDS",
        gt=0,
        description="after which a call that no caller waits for any more is given up",
    )
    poll_seconds: float = Field(
        default=1.0, alias="SERVING_POLL_SECONDS", gt=0, description="between two looks for new releases"
    )
    threads: int = Field(default=1, alias="SERVING_THREADS", ge=1, description="of linear algebra in the model server")
    answer_cache_bytes: int = Field(
        default=64 * 1024 * 1024,
        alias="SERVING_ANSWER_CACHE_BYTES",
        ge=0,
        description="of answers that the model server keeps for those who ask the same again; 0: none",
    )
    secret: SecretStr | None = Field(
        default=None,
        alias="SERVING_SECRET",
        min_length=16,
        description="that the API sends and the model server asks for; None: that of the state folder",
    )

    def with_secret(self, paths: PathSettings) -> Self:
        """These settings with a secret: their own, or that of the state folder, which is made where it is missing."""
        return (
            self
            if self.secret
            else self.model_copy(update={"secret": SecretStr(kept_secret(paths.serving_secret_file))})
        )

    @property
    def authorization(self) -> str | None:
        """The value of the header that carries the secret; None without a secret."""
        return f"Bearer {self.secret.get_secret_value()}" if self.secret else None


class TrackingSettings(Settings):
    """MLflow. Without a URI, a SQLite store in the state folder."""

    uri: str | None = Field(
        default=None, alias="MLFLOW_TRACKING_URI", description="of a server; None: a SQLite store in the state folder"
    )

    def resolve(self, paths: PathSettings) -> str:
        return self.uri or f"sqlite:///{paths.mlflow / 'mlflow.db'}"

    def store(self, paths: PathSettings) -> str | None:
        """The address of MLflow's database, where this machine reaches it: the state folder's, behind a server too."""
        if self.uri is not None and not self.uri.startswith("http"):
            return self.uri
        path = paths.mlflow / "mlflow.db"
        return f"sqlite:///{path}" if path.exists() else None


class PipelineSettings(Settings):
    """When the pipeline runs by itself, and the resources of a training."""

    retrain_after: int = Field(
        default=5_000, alias="RETRAIN_AFTER_INTERACTIONS", ge=1, description="new interactions that start a retraining"
    )
    first_model_after: int = Field(
        default=1_000, alias="FIRST_MODEL_AFTER_INTERACTIONS", ge=1, description="interactions that a training needs"
    )
    nightly_cron: str = Field(
        default="0 3 * * *", alias="RETRAIN_CRON", description="of the nightly retraining, in UTC"
    )
    erase_after_hours: float = Field(
        default=12.0,
        alias="ERASE_AFTER_HOURS",
        ge=0,
        le=23,
        description="an erasure that has waited for so long starts an export",
    )
    automation: bool = Field(
        default=False, alias="PIPELINE_AUTOMATION", description="schedules and sensors start switched on"
    )
    train_seconds: float = Field(default=600.0, alias="TRAIN_MAX_SECONDS", gt=0, description="per model family")
    train_threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1, alias="TRAIN_THREADS", ge=1, description="of a fit"
    )
    train_memory_mb: float | None = Field(
        default=None,
        alias="TRAIN_MEMORY_MB",
        gt=0,
        description="MB; a training expected to take more is refused before it starts; none: what the machine has",
    )
    evaluated_users: int = Field(
        default=20_000,
        alias="EVALUATED_USERS",
        ge=100,
        description="largest number of users that a model is measured on; of more, a sample of this size is drawn",
    )
    train_device: str = Field(default="cpu", alias="TRAIN_DEVICE", description="cpu, cuda or cuda:<n>")
    search_minutes_per_day: float = Field(
        default=360.0,
        alias="SEARCH_MINUTES_PER_DAY",
        ge=0,
        description="that searches for better hyper-parameters take of any 24 hours, all tenants together",
    )
    search_runs: int = Field(
        default=1, alias="SEARCH_RUNS", ge=1, description="searches that run at once, while no training waits or runs"
    )
    generation_turn_seconds: float = Field(
        default=120.0,
        alias="GENERATION_TURN_SECONDS",
        ge=0,
        description="a turn of a tenant's bulk generation, after which one of another tenant that waits has its turn",
    )
    owners: Words = Field(
        default=("team:recommendations",),
        alias="PIPELINE_OWNERS",
        description="whom Dagster names as owners of each asset: mail addresses, or `team:<name>`",
    )
    source_url: str | None = Field(
        default=None,
        alias="SOURCE_URL",
        pattern=r"^https?://",
        description="where the repository's files are shown, for links to the code: "
        "`https://github.com/<owner>/<repository>/blob/<branch>`",
    )


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


class AuthSettings(Settings):
    """Secrets and tokens of the API. The JWT secret has no default: without one, the API does not start, unless
    `python -m api rotate-signing-key` has made a key in the state folder."""

    jwt_secret: SecretStr | None = Field(default=None, alias="JWT_SECRET", description="at least 32 bytes")
    jwt_other_secrets: Secrets = Field(
        default=(),
        alias="JWT_OTHER_SECRETS",
        description="verify tokens and never sign: the secret before, or the next",
    )
    jwt_issuer: str = Field(default="recommendai", alias="JWT_ISSUER", description="the `iss` of our own tokens")
    token_seconds: int = Field(default=3_600, alias="JWT_SECONDS", ge=60, description="life of an access token")
    session_seconds: int = Field(
        default=30 * 86_400, alias="SESSION_SECONDS", ge=60, description="life of an unused refresh token"
    )
    registration_tenant: str | None = Field(
        default=None,
        alias="REGISTRATION_TENANT",
        description="the tenant that anyone may join; None: registration is closed",
    )
    external_issuers: tuple[ExternalIssuer, ...] = Field(
        default=(),
        alias="EXTERNAL_ISSUERS",
        description="a JSON list: issuer, audience, algorithms, key or jwks_url, tenants",
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


class BillingSettings(Settings):
    """Stripe. Without its key and secret the routes that need them answer 503; everything else works."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    api_key: SecretStr | None = Field(
        default=None, alias="STRIPE_API_KEY", description="secret key of the account; None: no billing"
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        alias="STRIPE_WEBHOOK_SECRET",
        description="while one is replaced, two between commas: both are accepted",
    )
    api_base: str = Field(default="https://api.stripe.com", alias="STRIPE_API_BASE", description="of Stripe's API")
    return_url: str = Field(
        default="http://localhost:8080/docs",
        alias="BILLING_RETURN_URL",
        description="the page to which Stripe's checkout and portal return",
    )
    timeout_seconds: float = Field(
        default=5.0,
        alias="STRIPE_TIMEOUT_SECONDS",
        gt=0,
        description="bound on all calls to Stripe during one request",
    )
    poll_seconds: float = Field(
        default=5.0,
        alias="BILLING_POLL_SECONDS",
        gt=0,
        description="between two polls for events that were not handled",
    )
    retry_seconds: float = Field(
        default=20.0,
        alias="BILLING_RETRY_SECONDS",
        gt=0,
        description="after which an event that was not handled is tried again; doubles each time",
    )
    overage_seconds: float = Field(
        default=60.0, alias="OVERAGE_SECONDS", gt=0, description="between two polls for billing cycles that have ended"
    )

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets of which any may sign a webhook."""
        given = self.webhook_secret.get_secret_value() if self.webhook_secret else ""
        return tuple(given.replace(",", " ").split())


class LogSettings(Settings):
    """Logs of all processes."""

    level: str = Field(
        default="INFO",
        alias="LOG_LEVEL",
        pattern="^(DEBUG|INFO|WARNING|ERROR|CRITICAL)$",
        description="least level that is written: DEBUG, INFO, WARNING, ERROR or CRITICAL",
    )
    format: str = Field(
        default="json", alias="LOG_FORMAT", pattern="^(json|console)$", description="json, or console for people"
    )
