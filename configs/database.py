"""Roles and limits of connections to PostgreSQL.

Two roles: one owns the tables and migrates them; the other, which the API and the pipelines use, reads and writes rows
and changes no table. Where one URL is set, one role does both.
"""

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from psycopg import sql
from pydantic import Field

from configs.settings import Settings

MIGRATION_LOCK = 0x7265636F6D6D656E
"""The advisory lock of whoever changes tables or rights on them: "recommen" in ASCII."""
VERSION_TABLE = "alembic_version"
"""The table that says which revision the database is at."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What the server ends by itself, in seconds; 0: nothing."""

    statement: float
    lock: float  # that a statement waits for a lock
    idle_transaction: float  # that a transaction waits for its client

    def options(self) -> str:
        """The limits as libpq's `options`."""
        seconds = {
            "statement_timeout": self.statement,
            "lock_timeout": self.lock,
            "idle_in_transaction_session_timeout": self.idle_transaction,
        }
        return " ".join(f"-c {name}={round(value * 1000)}" for name, value in seconds.items() if value)


class LimitsOfRequests(Settings):
    """Limits of the API's connections. A request that exceeds one is answered with 503."""

    statement: float = Field(
        default=30.0, alias="DATABASE_STATEMENT_SECONDS", ge=0, description="that a statement takes; 0: no limit"
    )
    lock: float = Field(
        default=10.0, alias="DATABASE_LOCK_SECONDS", ge=0, description="that it waits for a lock; 0: no limit"
    )
    idle_transaction: float = Field(
        default=60.0,
        alias="DATABASE_IDLE_TRANSACTION_SECONDS",
        ge=0,
        description="that a transaction waits for its client; 0: no limit",
    )

    def limited(self, url: str) -> str:
        """The URL with these limits."""
        return limited(url, ConnectionLimits(self.statement, self.lock, self.idle_transaction))


class LimitsOfJobs(Settings):
    """Limits of the pipelines' connections and of those of commands such as imports."""

    statement: float = Field(
        default=3_600.0,
        alias="DATABASE_JOB_STATEMENT_SECONDS",
        ge=0,
        description="that a statement takes; 0: no limit",
    )
    lock: float = Field(
        default=300.0, alias="DATABASE_JOB_LOCK_SECONDS", ge=0, description="that it waits for a lock; 0: no limit"
    )
    idle_transaction: float = Field(
        default=3_600.0,
        alias="DATABASE_JOB_IDLE_TRANSACTION_SECONDS",
        ge=0,
        description="that a transaction waits for its client; 0: no limit",
    )

    def limited(self, url: str) -> str:
        """The URL with these limits."""
        return limited(url, ConnectionLimits(self.statement, self.lock, self.idle_transaction))


class LimitsOfMigrations(Settings):
    """Limits of migrations. A statement may take as long as it needs, but not hold up others while it waits."""

    lock: float = Field(
        default=60.0,
        alias="DATABASE_MIGRATION_LOCK_SECONDS",
        ge=0,
        description="that a migration waits for a table that others use; 0: no limit",
    )


def limited(url: str, limits: ConnectionLimits) -> str:
    """The libpq URL with limits. Options that it has already stay and take precedence."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    given = [value for name, value in query if name == "options"]
    options = " ".join(filter(None, [limits.options(), *given]))
    if not options:
        return url
    rest = [(name, value) for name, value in query if name != "options"]
    return urlunsplit(parts._replace(query=urlencode([*rest, ("options", options)], quote_via=quote)))


def grants(role: str, server_version: int) -> list[sql.Composed]:
    """Statements by which the owner of the tables lets a role read and write their rows, now and in future tables.

    server_version: as libpq numbers it, such as 180001. From 17 on the role may also gather statistics, which an import
    does at its end.
    """
    rights = "SELECT, INSERT, UPDATE, DELETE" + (", MAINTAIN" if server_version >= 170_000 else "")
    statements = (
        "GRANT USAGE ON SCHEMA public TO {role}",
        f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {{role}}",
        "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT {rights} ON TABLES TO {{role}}",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {role}",
    )
    return [sql.SQL(statement).format(role=sql.Identifier(role)) for statement in statements]


def only_read(role: str, table: str) -> sql.Composed:
    """The statement that leaves a role the right to read a table, and no other."""
    statement = sql.SQL("REVOKE INSERT, UPDATE, DELETE ON {table} FROM {role}")
    return statement.format(role=sql.Identifier(role), table=sql.Identifier(table))
