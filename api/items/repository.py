"""Reads and writes items. A deleted item keeps a row without metadata; no read here returns it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, CursorResult, Executable, Row, Text, cast, func, or_, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.base import Table
from api.database.scope import TenantScope
from api.items.tables import CatalogueState, Item
from api.tenants.problems import TenantGone

items = Table.metadata.tables[Item.__tablename__]
catalogues = Table.metadata.tables[CatalogueState.__tablename__]
STATEMENT_BYTES = 256 * 1024
SHOWN = [items.c[name] for name in ("tenant_id", "id", "metadata", "is_active", "created_at", "updated_at")]
LISTED = [cast(column, Text).label(column.name) if column.name == "metadata" else column for column in SHOWN]


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item as it is stored."""

    tenant_id: str
    id: str
    metadata: dict[str, Any]
    is_active: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ListedItem:
    """A stored item whose metadata is JSON text: a page holds megabytes of it, which nothing here looks into."""

    tenant_id: str
    id: str
    metadata: str
    is_active: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewItemRow:
    """An item that is to be stored, with its metadata as JSON."""

    id: str
    metadata: bytes
    is_active: bool


@dataclass(frozen=True, slots=True)
class Search:
    """A search in the form in which the index can answer it."""

    query: str
    """What an item must contain: English words by their stems, unspaced scripts by pairs of characters."""
    phrases: str
    """The runs of unspaced script that are longer than one pair, as pairs in their order; empty without such runs."""
    runs: list[str]
    """The runs of unspaced script themselves."""

    @property
    def condition(self) -> ColumnElement[bool]:
        """Items that contain all words and, in order, all pairs.

        The index finds the items that contain all pairs. In nearly all of them the pairs follow each other, which the
        index can check too. In the rest, and in texts so long that the index lost the positions, the text is compared.
        """
        found: ColumnElement[bool] = items.c.search.bool_op("@@")(_tsquery(self.query))
        if not self.phrases:
            return found
        in_order: ColumnElement[bool] = items.c.search.bool_op("@@")(_tsquery(self.phrases))
        return found & or_(in_order, func.item_holds(items.c.metadata, cast(self.runs, ARRAY(Text))))

    @property
    def rank(self) -> ColumnElement[float]:
        return func.ts_rank_cd(items.c.search, _tsquery(self.query))


class ItemRepository:
    """The items of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id
        self._live = (items.c.tenant_id == scope.tenant_id) & items.c.deleted_at.is_(None)

    async def next_version(self) -> int:
        """Take a new version of the catalogue. The tenant's other writers of items wait until the transaction ends.

        Raises TenantGone.
        """
        statement = (
            update(catalogues)
            .where(catalogues.c.tenant_id == self._tenant_id)
            .values(version=catalogues.c.version + 1)
            .returning(catalogues.c.version)
        )
        version: int | None = (await self._execute(statement)).scalar_one_or_none()
        if version is None:
            raise TenantGone
        return version

    async def count(self) -> int:
        """The number of items, active or not. A trigger maintains it."""
        counted = select(catalogues.c.live_items).where(catalogues.c.tenant_id == self._tenant_id)
        return (await self._execute(counted)).scalar_one_or_none() or 0

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """The ids of the items that exist, active or not."""
        return set((await self._execute(select(items.c.id).where(self._live, items.c.id.in_(ids)))).scalars())

    async def find(self, id_: str) -> StoredItem | None:
        found = (await self._execute(select(*SHOWN).where(self._live, items.c.id == id_))).one_or_none()
        return None if found is None else _item(found)

    async def add(self, id_: str, metadata: dict[str, Any], active: bool, version: int) -> StoredItem | None:
        """Add an item and return it; None where the id is taken. A deleted item's id becomes a new item."""
        statement = postgresql.insert(items).values(
            tenant_id=self._tenant_id, id=id_, metadata=metadata, is_active=active, version=version
        )
        taken = {name: statement.excluded[name] for name in ("metadata", "is_active", "version")}
        upsert = statement.on_conflict_do_update(
            index_elements=["tenant_id", "id"],
            set_={**taken, "created_at": func.now(), "updated_at": func.now(), "deleted_at": None},
            where=items.c.deleted_at.is_not(None),
        ).returning(*SHOWN)
        found = (await self._execute(upsert)).one_or_none()
        return None if found is None else _item(found)

    async def add_all(self, new: Sequence[NewItemRow], version: int) -> set[str]:
        """Add items with distinct ids as `add` does, and return the ids of those that were added.

        Metadata goes to the database as the JSON that it is, in statements of at most `STATEMENT_BYTES` or one row.
        """
        connection = await self._session.connection()
        added: set[str] = set()
        for rows in _statements(new):
            parameters = {"tenant": self._tenant_id, "version": version, "rows": rows}
            added.update((await connection.execute(_ADD_ALL, parameters)).scalars())
        return added

    async def replace(self, id_: str, metadata: dict[str, Any], active: bool, version: int) -> StoredItem | None:
        """The item with new metadata and activity; None where there is none."""
        statement = (
            update(items)
            .where(self._live, items.c.id == id_)
            .values(metadata=metadata, is_active=active, version=version, updated_at=func.now())
            .returning(*SHOWN)
        )
        found = (await self._execute(statement)).one_or_none()
        return None if found is None else _item(found)

    async def delete(self, id_: str, version: int) -> bool:
        """Mark the item as deleted and empty its metadata; False where there is no such item."""
        statement = (
            update(items)
            .where(self._live, items.c.id == id_)
            .values(metadata={}, is_active=False, version=version, updated_at=func.now(), deleted_at=func.now())
        )
        return (await self._execute(statement)).rowcount == 1

    async def page(self, search: str | None, offset: int, limit: int) -> tuple[list[ListedItem], int]:
        """A page of items by id, or those that match the search by rank; and how many there are in all."""
        condition = self._live
        order: list[ColumnElement[Any]] = [items.c.id]
        # A trigger maintains the number of all items: counting a large catalogue takes longer than reading a page.
        counted = select(catalogues.c.live_items).where(catalogues.c.tenant_id == self._tenant_id)
        if search and not search.isspace():
            parsed = await self._parse(search)
            if not parsed.query:
                return [], 0
            condition &= parsed.condition
            order = [parsed.rank.desc(), items.c.id]
            counted = select(func.count()).select_from(items).where(condition)
        total = (await self._execute(counted)).scalar_one_or_none() or 0
        statement = select(*LISTED).where(condition).order_by(*order).offset(offset).limit(limit)
        return [ListedItem(**row._mapping) for row in (await self._execute(statement)).all()], total

    async def _parse(self, search: str) -> Search:
        """Parse a search by the functions that items are indexed with, which revision 0007 of the database defines."""
        query = cast(func.search_query(search), Text).label("query")
        phrases = cast(func.search_phrases(search), Text).label("phrases")
        runs = func.search_runs(search).label("runs")
        return Search(**(await self._execute(select(query, phrases, runs))).mappings().one())

    async def _execute(self, statement: Executable, rows: list[dict[str, Any]] | None = None) -> CursorResult[Any]:
        return await (await self._session.connection()).execute(statement, rows)


_ADD_ALL = text(
    """
    INSERT INTO items (tenant_id, id, metadata, is_active, version)
    SELECT :tenant, new.id, new.metadata, new.is_active, :version
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new (id text, metadata jsonb, is_active boolean)
    ON CONFLICT (tenant_id, id) DO UPDATE
    SET metadata = excluded.metadata, is_active = excluded.is_active, version = excluded.version,
        created_at = now(), updated_at = now(), deleted_at = NULL
    WHERE items.deleted_at IS NOT NULL
    RETURNING id
    """
)


def _statements(new: Sequence[NewItemRow]) -> Iterator[str]:
    """The rows as JSON arrays, each for one statement."""
    rows: list[bytes] = []
    size = 0
    for row in new:
        rows.append(
            b'{"id":%b,"metadata":%b,"is_active":%b}'
            % (msgspec.json.encode(row.id), row.metadata, b"true" if row.is_active else b"false")
        )
        size += len(rows[-1])
        if size > STATEMENT_BYTES:
            yield f"[{b','.join(rows).decode()}]"
            rows, size = [], 0
    if rows:
        yield f"[{b','.join(rows).decode()}]"


def _tsquery(query: str) -> ColumnElement[Any]:
    return cast(query, postgresql.TSQUERY)


def _item(row: Row[Any]) -> StoredItem:
    return StoredItem(**row._mapping)
