"""The feature store reads the API's tables by name. Neither imports the other, so this test compares them."""

import re

import psycopg
import pytest
from sqlmodel import SQLModel

from api.erasure.tables import Tombstone
from api.interactions.tables import Interaction
from api.items.tables import CatalogueState, Item
from api.settings.tables import PipelineSettingsRow
from api.tenants.tables import Tenant
from feature_store import columns as c
from feature_store import sources
from feature_store.schemas import LAKE_INTERACTIONS, LAKE_ITEMS
from tests.feature_store.rows import add_interactions, add_items, add_tenant

READ = {
    "interactions": (Interaction, sources.INTERACTION_COLUMNS, LAKE_INTERACTIONS),
    "items": (Item, sources.ITEM_COLUMNS, LAKE_ITEMS),
}


@pytest.mark.parametrize("table", READ)
def test_every_column_of_the_lake_comes_from_a_column_of_the_table(table: str) -> None:
    model, expressions, schema = READ[table]
    columns = model.__table__.columns
    assert list(expressions) == schema.names
    for name, expression in expressions.items():
        source = columns[expression.removesuffix("::text")]
        assert source.nullable == schema.field(name).nullable, name


def test_arrow_types_of_the_lake_are_those_that_the_database_sends(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        add_tenant(connection, "acme")
        add_items(connection, "acme", {"i1": {"title": "One"}})
        add_interactions(connection, "acme", [("ann", "i1")], value=0.5)
    with sources.read_new_interactions(database_url, "acme", 0) as new:
        assert [batch.schema for batch in new.batches] == [LAKE_INTERACTIONS]
    with sources.read_catalogue(database_url, "acme") as catalogue:
        assert [batch.schema for batch in catalogue.batches] == [LAKE_ITEMS]


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (Interaction, {"tenant_id", "xid", "ingested_at", "id"}),
        (Item, {"tenant_id", "deleted_at", "id"}),
        (CatalogueState, {"tenant_id", "version"}),
        (Tenant, {"id", "deleted_at", "exclude_seen"}),
        (PipelineSettingsRow, {"tenant_id", "settings"}),
        (Tombstone, {"tenant_id", "user_id", "erased_at", "xid"}),
    ],
)
def test_columns_that_queries_filter_by_exist(model: type[SQLModel], names: set[str]) -> None:
    assert names <= set(model.__table__.columns.keys())


def test_interaction_types_of_the_table_are_those_of_the_lake() -> None:
    texts = [
        str(constraint.sqltext) for constraint in Interaction.__table__.constraints if hasattr(constraint, "sqltext")
    ]
    found = next(re.findall(r"'(\w+)'", text) for text in texts if "interaction_type" in text)
    assert tuple(found) == c.INTERACTION_TYPES
