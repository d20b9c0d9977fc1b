"""The SQL form of a filter gives the same result on PostgreSQL as the column form in the model server."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from api.items.filter_sql import to_sql
from api.scenarios.matching import matches
from serving.contracts.filters import Filter, parse_filter
from serving.filtering import MetadataColumns
from tests.fixtures.filters import says

# Few keys and values, so that filters and metadata meet; among them what is easily confused.
KEYS = st.sampled_from(["a", "b", "0", "a b", 'q"%s'])
STRINGS = st.sampled_from(["x", "X", "y", "é", "\U0001f600", "\uffff", "1", "", "%s", '"', "\\"])
NUMBERS = st.sampled_from([0, 1, -1, 1.5, 0.1, -0.0, 7, 10**15, 1e-7, 2.0**52])
HUGE = st.sampled_from([10**40, -(10**40), 1e300, 2**53 + 1])
SCALARS = STRINGS | NUMBERS | st.booleans() | st.none()
VALUES = st.recursive(
    SCALARS | HUGE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
METADATA = st.dictionaries(KEYS, VALUES, max_size=4)
PATHS = st.lists(KEYS, min_size=1, max_size=3).map(".".join)
COMPARED = STRINGS | NUMBERS
OPERATORS = st.one_of(
    st.fixed_dictionaries({"$in": st.lists(SCALARS, max_size=3)}),
    st.fixed_dictionaries({"$nin": st.lists(SCALARS, max_size=3)}),
    st.fixed_dictionaries({"$eq": SCALARS}),
    st.fixed_dictionaries({"$ne": SCALARS}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
    *(st.fixed_dictionaries({name: COMPARED}) for name in ("$gt", "$gte", "$lt", "$lte")),
    st.fixed_dictionaries({"$gt": COMPARED, "$lte": COMPARED}),
    st.fixed_dictionaries({"$not": st.fixed_dictionaries({"$gt": COMPARED})}),
)
FIELDS = st.dictionaries(PATHS, SCALARS | OPERATORS, max_size=2)
FILTERS = st.recursive(
    FIELDS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def connection(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


def matching_in_sql(connection: psycopg.Connection[Any], tree: Filter, items: list[dict[str, Any]]) -> list[bool]:
    condition = to_sql(tree, "item.metadata")
    query = f"""
        SELECT {condition.text} FROM unnest(%s::jsonb[]) WITH ORDINALITY AS item (metadata, place) ORDER BY place
    """
    rows = connection.execute(query, [*condition.values, [Jsonb(item) for item in items]]).fetchall()
    return [row[0] for row in rows]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILTERS, st.lists(METADATA, min_size=1, max_size=8))
@example({"a.0": "x"}, [{"a": ["x"]}])
@example({"a": {"$gt": 1}}, [{"a": [[2]]}, {"a": [2]}, {"a": "2"}, {"a": True}])
@example({"a": None}, [{}, {"a": None}, {"a": []}, {"a": [None]}, {"a": {}}])
@example({"$not": {"a.b": {"$lt": "x"}}}, [{}, {"a": []}, {"a": {"b": "X"}}])
@example({"a": {"$lt": "\uffff"}}, [{"a": "\U0001f600"}, {"a": "\uffff"}])
def test_sql_and_columns_select_the_same_items(
    connection: psycopg.Connection[Any], document: dict[str, Any], items: list[dict[str, Any]]
) -> None:
    tree = parse_filter(document)
    expected = [says(tree, item) for item in items]
    assert matching_in_sql(connection, tree, items) == expected
    assert MetadataColumns(items).mask(tree).tolist() == expected
    assert [matches(tree, item) for item in items] == expected


def test_operands_are_bound_and_never_become_sql(connection: psycopg.Connection[Any]) -> None:
    attack = "x'); DROP TABLE items; --"
    tree = parse_filter({attack: {"$in": [attack]}, "b": {"$gte": attack}})
    condition = to_sql(tree)
    assert attack not in condition.text
    assert condition.text.count("%s") == len(condition.values)
    assert matching_in_sql(connection, tree, [{attack: attack, "b": attack}, {}]) == [True, False]
