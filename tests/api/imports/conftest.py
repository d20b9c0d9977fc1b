"""A tenant to import into, and a function that imports a text."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from api.database.scope import TenantScope
from api.imports.load import Report, load_files
from feature_store.loaders.mapping import Mapping


class Importer:
    """Imports files into the tenant "shop" and looks at what became of them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.steps: list[str] = []

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def load(
        self, items: Path | None = None, interactions: Path | None = None, mapping: dict[str, Any] | None = None
    ) -> Report:
        rejects = self.folder / "rejects"
        scope = TenantScope("shop")
        return load_files(self.url, scope, Mapping(**(mapping or {})), items, interactions, rejects, self.steps.append)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(query).fetchall()

    def counts(self) -> tuple[int, int, int]:
        """Live items, users, interactions."""
        (row,) = self.rows(
            "SELECT (SELECT count(*) FROM items WHERE deleted_at IS NULL), (SELECT count(*) FROM users), "
            "(SELECT count(*) FROM interactions)"
        )
        return row


@pytest.fixture
def importer(database_url: str, tenants: Any, tmp_path: Path) -> Importer:
    tenants.create("shop")
    return Importer(database_url, tmp_path)
