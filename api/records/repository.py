"""Reads and writes recommendation records. Records of inactive or deleted items are never returned."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, CursorResult, Executable, Row, Select, bindparam, delete, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import DOUBLE_PRECISION, Text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.base import Table
from api.database.scope import TenantScope
from api.items.tables import Item
from api.records.tables import RecommendationRecord
from serving.contracts.messages import RankedItem

recommendations = Table.metadata.tables[RecommendationRecord.__tablename__]
items = Table.metadata.tables[Item.__tablename__]
SHOWN = [recommendations.c[name] for name in ("id", "user_id", "item_id", "score", "reason", "created_at", "algorithm")]
SAME_ITEM = (items.c.tenant_id == recommendations.c.tenant_id) & (items.c.id == recommendations.c.item_id)
LIVE = SAME_ITEM & items.c.is_active & items.c.deleted_at.is_(None)
# Counting the records without a hidden item takes half as long for a million records as counting those with a live one:
# every item has a row, and few are hidden.
HIDDEN = select(items.c.id).where(SAME_ITEM, ~items.c.is_active | items.c.deleted_at.is_not(None)).exists()
ORDER = (recommendations.c.created_at.desc(), recommendations.c.user_id, recommendations.c.rank, recommendations.c.id)


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record with the present metadata of its item."""

    id: UUID
    user_id: str
    item_id: str
    score: float
    reason: str
    created_at: datetime
    algorithm: str
    metadata: dict[str, Any]


class RecordRepository:
    """The recommendation records of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id
        self._own = recommendations.c.tenant_id == scope.tenant_id

    async def page(
        self, user_id: str | None, algorithm: str | None, offset: int, limit: int
    ) -> tuple[list[StoredRecord], int]:
        """A page of records, newest first and best first within a list, and the number of all records."""
        conditions: list[ColumnElement[bool]] = [self._own]
        if user_id is not None:
            conditions.append(recommendations.c.user_id == user_id)
        if algorithm is not None:
            conditions.append(recommendations.c.algorithm == algorithm)
        counted = select(func.count()).select_from(recommendations).where(*conditions, ~HIDDEN)
        total = (await self._execute(counted)).scalar_one()
        found = await self._execute(_shown().where(*conditions).order_by(*ORDER).offset(offset).limit(limit))
        return [_record(row) for row in found], total

    async def find(self, id_: UUID) -> StoredRecord | None:
        found = (await self._execute(_shown().where(self._own, recommendations.c.id == id_))).one_or_none()
        return None if found is None else _record(found)

    async def delete(self, id_: UUID) -> bool:
        """Returns False where there is no such record."""
        statement = delete(recommendations).where(self._own, recommendations.c.id == id_)
        return (await self._execute(statement)).rowcount == 1

    async def add_shown(
        self, user_id: str, algorithm: str, release: str | None, recommendation_id: UUID, ranked: Sequence[RankedItem]
    ) -> list[StoredRecord]:
        """Store a record for each item of an answer and return the records, best first.

        Items that were hidden a moment ago are left out. Nothing is stored for a user who was deleted a moment ago.
        """
        parameters = {
            "tenant": self._tenant_id,
            "user": user_id,
            "algorithm": algorithm,
            "release": release,
            "recommendation": recommendation_id,
            "items": [item.item_id for item in ranked],
            "scores": [round(item.score, 6) for item in ranked],
            "reasons": [item.explanation for item in ranked],
        }
        result = await (await self._session.connection()).execute(_ADD_SHOWN, parameters)
        return [_record(row) for row in result]

    async def _execute(self, statement: Executable) -> CursorResult[Any]:
        return await (await self._session.connection()).execute(statement)


def _shown() -> Select[Any]:
    return select(*SHOWN, items.c.metadata).select_from(recommendations.join(items, LIVE))


def _record(row: Row[Any]) -> StoredRecord:
    return StoredRecord(**row._mapping)


_ADD_SHOWN = text("""
WITH shown AS (
    SELECT gen_random_uuid() AS id, owner.id AS user_id, item.id AS item_id, item.metadata, listed.score,
        listed.reason, listed.rank
    FROM (SELECT id FROM users WHERE tenant_id = :tenant AND id = :user FOR KEY SHARE) AS owner
    CROSS JOIN unnest(:items, :scores, :reasons) WITH ORDINALITY AS listed (item_id, score, reason, rank)
    JOIN items AS item ON item.tenant_id = :tenant AND item.id = listed.item_id
    WHERE item.is_active AND item.deleted_at IS NULL
), written AS (
    INSERT INTO recommendations
        (tenant_id, id, user_id, item_id, rank, score, algorithm, reason, release, recommendation_id)
    SELECT :tenant, id, user_id, item_id, rank, score, :algorithm, reason, :release, :recommendation FROM shown
    RETURNING id, created_at, algorithm
)
SELECT id, user_id, item_id, score, reason, created_at, algorithm, metadata
FROM shown JOIN written USING (id) ORDER BY rank
""").bindparams(
    bindparam("items", type_=ARRAY(Text)),
    bindparam("scores", type_=ARRAY(DOUBLE_PRECISION)),
    bindparam("reasons", type_=ARRAY(Text)),
)
