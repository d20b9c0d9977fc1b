"""Which PostgreSQL an installation uses: one of its own, or the bundled server."""

from pathlib import Path

from pydantic import Field, SecretStr

from configs.settings import PathSettings, Settings


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
