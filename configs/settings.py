"""Settings: the base of their classes, and the folder that an installation keeps its state in.

Each class of settings reads the environment when it is constructed and never on import. It lives in the module of its
concern. The modules of this package:

    settings      base class, state folder               addresses     where programs listen
    postgres      which PostgreSQL                       database      roles and limits of connections
    api           process, server and limits of the API  auth          logins and tokens
    issuers       external identity providers            billing       the account at Stripe
    plans         subscription plans (`plans.yaml`)      mail          the SMTP server
    serving       the model server                       history       bounds on a user's history
    pipelines     when the pipeline runs                 tenant_pipeline   what tenants set of their pipelines
    features      how snapshots are built                compute       where heavy steps run
    tracking      MLflow                                 plugins       model families of other packages
    generation    where bulk generation stores its lists
    exports       files that administrators ask for      retention     how long what grows is kept
    journal       what a restore must not undo           escaping      foreign text in tables, Markdown and CSV
    logging       structured logs                        metrics       figures for Prometheus
    spans         traces                                 health_check  whether a program answers
    priority      low priority for the background        memory        garbage collection of servers
    console_guard    who reaches the consoles            files         files and folders that appear whole or not at all
    storage       where files are kept; in an object store: state_settings, state_check, object_storage, object_folders,
                  object_listing, buckets, fetched_files, advisory_locks
    local/        the processes of one machine: demo, PostgreSQL
    deploy/       image, units and proxies of an installation      observability/   dashboard and alert rules
    models/, search/, datasets/                          YAML: hyper-parameters, search spaces, data sets
"""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Words = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(lambda value: tuple(value.replace(",", " ").split()) if isinstance(value, str) else value),
]
"""Several words in one variable, separated by commas or spaces."""


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
    def recommendations(self) -> Path:
        """Recommendations of generation jobs as Parquet files, by tenant and job, where the settings say so."""
        return self.root / "recommendations"

    @property
    def generation(self) -> Path:
        """What a running generation hands to its tasks, and they to it. Machines that share tasks share it."""
        return self.root / "generation"

    @property
    def fits(self) -> Path:
        """What the processes of a group that trains together read and write. Machines that share a fit share it."""
        return self.root / "fits"

    @property
    def rejects(self) -> Path:
        """Rows that imports rejected, one file per import."""
        return self.root / "rejects"
