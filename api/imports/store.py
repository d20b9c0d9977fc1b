"""Writes prepared rows to PostgreSQL: copies them into temporary tables, and merges them in the same transaction."""
# ruff: noqa: S608 -- names are this package's own or quoted, and a mapping is as trusted as the command line

from dataclasses import dataclass
from pathlib import Path

import duckdb
from psycopg import Connection, Cursor
from psycopg.rows import TupleRow

from api.database.scope import TenantScope
from feature_store.loaders.prepare import INTERACTIONS, ITEMS, KNOWN_ITEMS
from feature_store.loaders.problems import ImportRefusedError

BLOCK = 1 << 20


@dataclass(frozen=True)
class ImportCounts:
    """The numbers of rows that an import added or changed. Rows that existed unchanged count for neither."""

    items_added: int = 0
    items_changed: int = 0
    users_added: int = 0
    interactions_added: int = 0
    catalogue_version: int = 0


class ImportStore:
    """Bulk reads and writes of one tenant's rows."""

    def __init__(self, connection: Connection[TupleRow], scope: TenantScope) -> None:
        self._connection = connection
        self._tenant = scope.tenant_id

    def require_tenant(self) -> None:
        """Lock the tenant's row, so that it is not deleted meanwhile. Raises ImportRefusedError where there is none."""
        query = "SELECT FROM tenants WHERE id = %s AND deleted_at IS NULL FOR KEY SHARE"
        if self._connection.execute(query, [self._tenant]).fetchone() is None:
            raise ImportRefusedError(
                f"there is no tenant {self._tenant!r}; create it with `python -m api create-tenant --id {self._tenant}`"
            )

    def set_exclude_seen(self, value: str) -> None:
        self._connection.execute("UPDATE tenants SET exclude_seen = %s WHERE id = %s", [value, self._tenant])

    def read_known_items(self, db: duckdb.DuckDBPyConnection, folder: Path) -> None:
        """Create the DuckDB table KNOWN_ITEMS from the catalogue's items."""
        path = folder / "known.csv"
        query = "COPY (SELECT id FROM items WHERE tenant_id = {} AND deleted_at IS NULL) TO STDOUT (FORMAT csv)"
        with (
            path.open("wb") as file,
            self._connection.cursor() as cursor,
            cursor.copy(query.format(_literal(self._tenant))) as copy,
        ):
            for block in copy:
                file.write(block)
        db.execute(f"CREATE TABLE {KNOWN_ITEMS} (id VARCHAR)")
        if path.stat().st_size:
            columns = "header = false, columns = {'id': 'VARCHAR'}, delim = ',', quote = '\"', escape = '\"'"
            db.execute(f"INSERT INTO {KNOWN_ITEMS} SELECT id FROM read_csv(?, {columns})", [str(path)])

    def merge_items(self, db: duckdb.DuckDBPyConnection, folder: Path) -> tuple[int, int, int]:
        """Write ITEMS; returns (added, changed, catalogue version). The version grows by one if anything changed."""
        with self._connection.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE staged_items (id text, metadata jsonb, is_active boolean) ON COMMIT DROP")
            _copy(db, cursor, folder, f"SELECT id, metadata, is_active FROM {ITEMS}", "staged_items")
            # The row lock makes the tenant's other writers of items wait: see `api.items.tables.CatalogueState`.
            cursor.execute("SELECT version FROM catalogues WHERE tenant_id = %s FOR UPDATE", [self._tenant])
            row = cursor.fetchone()
            if row is None:
                raise LookupError(f"tenant {self._tenant} has no catalogue")
            version = row[0]
            cursor.execute(_MERGE_ITEMS, {"tenant": self._tenant, "version": version + 1})
            added, changed = cursor.fetchone() or (0, 0)
            if added + changed:
                version += 1
                cursor.execute("UPDATE catalogues SET version = %s WHERE tenant_id = %s", [version, self._tenant])
        return added, changed, version

    def merge_interactions(self, db: duckdb.DuckDBPyConnection, folder: Path) -> tuple[int, int]:
        """Write INTERACTIONS and their users; returns (users added, interactions added)."""
        with self._connection.cursor() as cursor:
            cursor.execute(
                "CREATE TEMP TABLE staged_interactions (id uuid, user_id text, item_id text, interaction_type text, "
                "value real, occurred_at timestamptz) ON COMMIT DROP"
            )
            columns = "id, user_id, item_id, interaction_type, value, occurred_at"
            _copy(db, cursor, folder, f"SELECT {columns} FROM {INTERACTIONS}", "staged_interactions")
            cursor.execute(_MERGE_USERS, {"tenant": self._tenant})
            users = (cursor.fetchone() or (0,))[0]
            # The users' histories are counted as changed, and no trigger has to: see migration 0011.
            cursor.execute("SELECT set_config('recommendai.history_counted', 'yes', true)")
            cursor.execute(
                f"INSERT INTO interactions (tenant_id, {columns}) SELECT %s, {columns} FROM staged_interactions "
                "WHERE id NOT IN (SELECT event FROM archived_interactions CROSS JOIN LATERAL unnest(ids) AS event "
                "WHERE tenant_id = %s AND user_id IN (SELECT user_id FROM staged_interactions)) "
                "ON CONFLICT DO NOTHING",
                [self._tenant, self._tenant],
            )
            return users, cursor.rowcount

    def refresh_statistics(self) -> None:
        """Update planner statistics, and the visibility map for index-only scans. Call it outside a transaction."""
        self._connection.execute("VACUUM (ANALYZE) items, users, interactions")


_MERGE_ITEMS = """
WITH merged AS (
    INSERT INTO items AS item (tenant_id, id, metadata, is_active, version)
    SELECT %(tenant)s, staged.id, staged.metadata,
        coalesce(staged.is_active, CASE WHEN present.deleted_at IS NULL THEN present.is_active END, true), %(version)s
    FROM staged_items AS staged
    LEFT JOIN items AS present ON present.tenant_id = %(tenant)s AND present.id = staged.id
    ON CONFLICT (tenant_id, id) DO UPDATE
    SET metadata = excluded.metadata, is_active = excluded.is_active, version = excluded.version,
        updated_at = now(), deleted_at = NULL
    WHERE (item.metadata, item.is_active) IS DISTINCT FROM (excluded.metadata, excluded.is_active)
        OR item.deleted_at IS NOT NULL
    RETURNING xmax = 0 AS added
)
SELECT count(*) FILTER (WHERE added), count(*) FILTER (WHERE NOT added) FROM merged
"""

_MERGE_USERS = """
WITH merged AS (
    INSERT INTO users AS known (tenant_id, id, created_at, last_active_at, history_version)
    SELECT %(tenant)s, user_id, now(), max(occurred_at), 1 FROM staged_interactions GROUP BY user_id
    ON CONFLICT (tenant_id, id) DO UPDATE
    SET last_active_at = GREATEST(known.last_active_at, excluded.last_active_at),
        history_version = known.history_version + 1
    RETURNING xmax = 0 AS added
)
SELECT count(*) FILTER (WHERE added) FROM merged
"""


def _copy(db: duckdb.DuckDBPyConnection, cursor: Cursor[TupleRow], folder: Path, query: str, table: str) -> None:
    """Copy the rows of a DuckDB query into a PostgreSQL table, as CSV and without per-row Python."""
    path = folder / f"{table}.csv"
    db.execute(f"COPY ({query}) TO '{path}' (FORMAT csv, HEADER false, NULLSTR '')")
    with path.open("rb") as file, cursor.copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copy:
        while block := file.read(BLOCK):
            copy.write(block)
    path.unlink()


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
