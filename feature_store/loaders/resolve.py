"""Resolves the sources of a mapping, or its defaults, to columns of a staged file."""
# ruff: noqa: S608 -- column names are quoted, and a mapping is as trusted as the command line it comes from

from collections.abc import Mapping

import duckdb

from feature_store.loaders.columns import Raw, metadata_type, missing
from feature_store.loaders.mapping import ColumnSource
from feature_store.loaders.problems import ImportRefusedError
from feature_store.loaders.readers import Staged, literal, quoted

DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "items.id": ("id", "itemId", "item_id"),
    "items.active": ("isActive", "is_active"),
    "interactions.user": ("userId", "user_id"),
    "interactions.item": ("itemId", "item_id"),
    "interactions.type": ("interactionType", "interaction_type"),
    "interactions.value": ("value",),
    "interactions.timestamp": ("timestamp",),
}
"""The columns that are used where the mapping names none: the API's names, in camelCase and snake_case."""


class Resolver:
    """Resolves the sources of one file, and records which columns they use."""

    def __init__(self, db: duckdb.DuckDBPyConnection, staged: Staged) -> None:
        self._db = db
        self._staged = staged
        self.used: set[str] = set()

    def required(self, source: ColumnSource | None, where: str, purpose: str) -> Raw:
        """The source, or the default column of `where`. Raises ImportRefusedError where the file has neither."""
        found = self.optional(source, where, purpose)
        if found is None:
            raise ImportRefusedError(missing(self._staged, DEFAULTS[where][0], purpose, where))
        return found

    def optional(self, source: ColumnSource | None, where: str, purpose: str) -> Raw | None:
        """The source, or the default column of `where`, or None. Raises where a named column is missing."""
        if source is None:
            name = next((name for name in DEFAULTS.get(where, ()) if name in self._staged.columns), None)
            return None if name is None else self.optional(ColumnSource(column=name), where, purpose)
        if source.column is not None:
            if source.column not in self._staged.columns:
                raise ImportRefusedError(missing(self._staged, source.column, purpose, where))
            self.used.add(source.column)
            return Raw(source.column, quoted(source.column), self._staged.columns[source.column])
        if source.sql is not None:
            return Raw(where, f"({source.sql})", self._type_of(source.sql, where))
        value = source.constant
        return Raw(where, literal(value), "VARCHAR") if isinstance(value, str) else Raw(where, str(value), "DOUBLE")

    def looks_like(self, source: Raw) -> str:
        """The metadata type of a text column, inferred from all of its values."""
        row = self._db.execute(f"SELECT {metadata_type(source)} FROM {self._staged.table}").fetchone()
        return str(row[0]) if row else "text"

    def _type_of(self, expression: str, where: str) -> str:
        try:
            row = self._db.execute(f"DESCRIBE SELECT ({expression}) FROM {self._staged.table}").fetchone()
        except duckdb.Error as error:
            raise ImportRefusedError(f"{self._staged.file}: `{where}.sql` in the mapping: {error}") from error
        return str(row[1]) if row else ""
