"""A tenant whose interactions are written in every way that there is, and what a request must then read of a user."""

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import duckdb
import psycopg
import pytest

from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import transaction
from api.imports.store import ImportStore
from api.interactions.repository import InteractionRepository, InteractionRow
from api.recommendations.history import HistoryReader
from api.recommendations.history_store import HistoryStore
from api.users.service import delete_user
from configs.history import HistorySettings
from configs.plans import plan
from feature_store.interaction_types import SEEN_TYPES, SeenPolicy, event_weight
from feature_store.loaders.prepare import INTERACTIONS
from serving.contracts.histories import read_history, read_ids
from tests.fixtures.journals import journals

SHOP = TenantScope("shop")
BOUNDS = HistorySettings(max_events=4, max_seen=3)  # of 30 scanned events
USERS = ("ann", "bøb")
ITEMS = ("a", "b", "c", "ä-long-id-" + "x" * 240)
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
START = datetime(2025, 1, 1, 0, 0, 0, 1, tzinfo=UTC)

# What the version of this code before kept histories sent.
OLD_ADD = """
WITH acting AS (
    INSERT INTO users AS known (tenant_id, id, last_active_at) VALUES ('shop', %(user)s, %(at)s)
    ON CONFLICT (tenant_id, id) DO UPDATE SET last_active_at = excluded.last_active_at
    WHERE known.last_active_at IS NULL OR known.last_active_at < excluded.last_active_at
)
INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, value, occurred_at)
VALUES ('shop', %(id)s, %(user)s, %(item)s, %(type)s, %(value)s, %(at)s)
"""


class Event(NamedTuple):
    """An interaction of the model."""

    user: str
    item: str
    type: str
    value: float | None
    at: datetime

    def row(self) -> InteractionRow:
        return InteractionRow(uuid4(), self.user, self.item, self.type, self.value, self.at, None)


def expected(events: Mapping[UUID, Event], user: str, policy: SeenPolicy) -> tuple[list[Any], list[str]]:
    """The history and the seen items of a user within BOUNDS: the promise in a few lines."""
    own = [(each.at, each.item, id_, each) for id_, each in events.items() if each.user == user]
    newest = [each for *_, each in sorted(own, key=lambda one: one[:3])[-30:]]
    history = [
        (
            each.item,
            each.type,
            pytest.approx(event_weight(each.type, each.value)),
            (each.at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1),
        )
        for each in newest[-4:]
    ]
    seen = [each.item for each in reversed(newest) if each.type in SEEN_TYPES[policy]]
    return history, list(dict.fromkeys(seen))[:3]


@dataclass
class Shop:
    """A tenant whose interactions are written in every way that there is, and read as requests read them."""

    url: str
    database: Database
    reader: HistoryReader
    store: HistoryStore
    events: dict[UUID, Event] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, bounds: HistorySettings = BOUNDS) -> AsyncIterator["Shop"]:
        database = Database(url, pool_min=2)
        await database.open()
        try:
            store = HistoryStore(database.pool, bounds)
            yield cls(url, database, HistoryReader(database.pool, bounds, store), store)
        finally:
            await database.close()

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

    @property
    def interactions(self) -> InteractionRepository:
        return InteractionRepository(self.database.pool, SHOP, plan("unlimited"))

    async def single(self, event: Event) -> None:
        row = event.row()
        assert await self.interactions.add(row)
        self.events[row.id] = event

    async def batch(self, *events: Event) -> None:
        rows = {each.id: event for event in events for each in [event.row()]}
        sent = [replace(event.row(), id=id_) for id_, event in rows.items()]
        assert (await self.interactions.add_all(sent)).ids == set(rows)
        self.events |= rows

    async def load(self, *rows: tuple[UUID, Event]) -> None:
        """An import. It leaves out the rows whose ids are there already."""
        with psycopg.connect(self.url) as connection, connection.transaction(), duckdb.connect() as db:
            db.execute("SET TimeZone = 'UTC'")
            db.execute(
                f"CREATE TABLE {INTERACTIONS} (id UUID, user_id VARCHAR, item_id VARCHAR, interaction_type VARCHAR, "
                "value FLOAT, occurred_at TIMESTAMPTZ)"
            )
            for id_, event in rows:
                db.execute(f"INSERT INTO {INTERACTIONS} VALUES (?, ?, ?, ?, ?, ?)", [id_, *event])
            with tempfile.TemporaryDirectory() as folder:
                ImportStore(connection, SHOP).merge_interactions(db, Path(folder))
        self.events = dict(rows) | self.events

    async def old(self, event: Event) -> None:
        id_ = uuid4()
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(OLD_ADD, {**event._asdict(), "id": id_})
        self.events[id_] = event

    async def erase(self, user: str) -> None:
        if not self.sql("SELECT 1 FROM users WHERE id = %s", user):
            return
        async with transaction(self.database) as session:
            with tempfile.TemporaryDirectory() as folder:
                await delete_user(session, SHOP, user, journals(Path(folder))[0])
        self.events = {id_: event for id_, event in self.events.items() if event.user != user}

    async def check(self) -> None:
        for user in USERS:
            for policy in SEEN_TYPES:
                view = await self.reader.view(SHOP, user, policy)
                history = [
                    tuple(getattr(each, name) for name in each.__struct_fields__) for each in read_history(view.history)
                ]
                assert (history, read_ids(view.seen)) == expected(self.events, user, policy)
