"""The filter language: what is parsed, what is refused and how, and that columns follow the definition."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_OPERANDS,
    Filter,
    FilterError,
    parse_filter,
)
from serving.filtering import MetadataColumns, filter_key, lay_over
from tests.fixtures.filters import says


def matching(document: Any, *metadata: dict[str, Any]) -> list[bool]:
    return MetadataColumns(metadata).mask(parse_filter(document)).tolist()


def test_equality_on_an_array_means_contains() -> None:
    assert matching({"genres": "horror"}, {"genres": ["war", "horror"]}, {"genres": ["war"]}, {"genres": "horror"}) == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("document", "metadata", "matches"),
    [
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": None}, {"a": None}, True),
        ({"a": None}, {}, True),
        ({"a": None}, {"a": []}, False),
        ({"a": "x"}, {"a": {"b": "x"}}, False),
        ({"a.b": "x"}, {"a": {"b": "x"}}, True),
        ({"a.b": "x"}, {"a": [{"b": "x"}]}, False),
        ({"a.0": "x"}, {"a": ["x"]}, False),
        ({"a.b": "x"}, {"a.b": "x"}, False),
        ({"a": {"$in": [1, "x"]}}, {"a": "x"}, True),
        ({"a": {"$in": []}}, {"a": "x"}, False),
        ({"a": {"$nin": []}}, {"a": "x"}, True),
        ({"a": {"$nin": ["x"]}}, {}, True),
        ({"a": {"$ne": "x"}}, {"a": ["x", "y"]}, False),
        ({"a": {"$gt": 5}}, {"a": 5}, False),
        ({"a": {"$gte": 5}}, {"a": 5}, True),
        ({"a": {"$gt": 5}}, {"a": "7"}, False),
        ({"a": {"$gt": 5}}, {"a": True}, False),
        ({"a": {"$gt": 5}}, {"a": [1, 7]}, True),
        ({"a": {"$gt": 5}}, {"a": 10**400}, True),
        ({"a": {"$lt": 5}}, {"a": -(10**400)}, True),
        ({"a": {"$gte": 5, "$lt": 7}}, {"a": 6}, True),
        ({"a": {"$gte": 5, "$lt": 7}}, {"a": [1, 9]}, True),  # two elements meet the two bounds
        ({"a": {"$lt": "b"}}, {"a": "a"}, True),
        ({"a": {"$lt": "a"}}, {"a": "Z"}, True),  # by code point, not by alphabet
        ({"a": {"$exists": True}}, {"a": None}, True),
        ({"a": {"$exists": False}}, {"a": None}, False),
        ({"a": {"$exists": False}}, {}, True),
        ({"a": {"$not": {"$gt": 5}}}, {}, True),
        ({"$not": {"a": 1}}, {"a": 1}, False),
        ({"$or": [{"a": 1}, {"b": 2}]}, {"b": 2}, True),
        ({"$and": [{"a": 1}, {"b": 2}]}, {"b": 2}, False),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, True),
        ({}, {}, True),
    ],
)
def test_meaning(document: Any, metadata: dict[str, Any], matches: bool) -> None:
    assert matching(document, metadata) == [matches]


@pytest.mark.parametrize(
    ("document", "field", "words"),
    [
        ([], "filter", "object"),
        ({"$nor": []}, "filter.$nor", "$and, $or and $not"),
        ({"a": {"b": 1}}, "filter.a.b", "dotted path"),
        ({"a": [1]}, "filter.a", "$in"),
        ({"a": {}}, "filter.a", "value or an operator"),
        ({"a": {"$gt": None}}, "filter.a.$gt", "number or a string"),
        ({"a": {"$gt": True}}, "filter.a.$gt", "number or a string"),
        ({"a": {"$in": "x"}}, "filter.a.$in", "list"),
        ({"a": {"$in": [1, [2]]}}, "filter.a.$in[1]", "string, number"),
        ({"a": {"$exists": 1}}, "filter.a.$exists", "true or false"),
        ({"a": {"$not": 1}}, "filter.a.$not", "$ne"),
        ({"$or": []}, "filter.$or", "at least one"),
        ({"$or": [{"a": 1}, 2]}, "filter.$or[1]", "object"),
        ({"a..b": 1}, "filter.a..b", "empty key"),
        ({"": 1}, "filter.", "empty key"),
        ({".".join("abcdefghi"): 1}, "filter.a.b.c.d.e.f.g.h.i", "8 keys"),
        ({"a": float("nan")}, "filter.a", "between"),
        ({"a": 2**53}, "filter.a", "between"),
        ({"a": "\0"}, "filter.a", "NUL"),
        ({"a": "\ud800"}, "filter.a", "surrogate"),
        ({"a": "x" * 2000}, "filter.a", "1024"),
    ],
)
def test_what_is_no_filter_is_refused_by_place_and_reason(document: Any, field: str, words: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(document)
    assert caught.value.field == field
    assert words in caught.value.message


def nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        document = {"$not": document}
    return document


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (nested(MAX_DEPTH), nested(MAX_DEPTH + 1)),
        (nested(MAX_DEPTH), nested(900)),
        ({"$or": [{"a": 1}] * MAX_CONDITIONS}, {"$or": [{"a": 1}] * (MAX_CONDITIONS + 1)}),
        ({"$or": [{}] * MAX_CONDITIONS}, {"$or": [{}] * (MAX_CONDITIONS + 1)}),
        ({"a": {"$in": [1] * MAX_OPERANDS}}, {"a": {"$in": [1] * MAX_OPERANDS}, "b": 1}),
    ],
)
def test_depth_and_size_are_bounded(within: Any, beyond: Any) -> None:
    parse_filter(within)
    with pytest.raises(FilterError):
        parse_filter(beyond)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, -2.5]),
    st.sampled_from(["", "a", "b", "é"]),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.sampled_from("xy"), SCALARS, max_size=2))
METADATA = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3)
PATHS = st.sampled_from(["a", "b", "c", "a.x", "b.y"])
ORDERED = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, -2.5]), st.sampled_from(["", "a", "é"]))
CONDITIONS = st.one_of(
    st.dictionaries(PATHS, SCALARS, max_size=2),
    st.builds(lambda p, o, v: {p: {o: v}}, PATHS, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), ORDERED),
    st.builds(lambda p, o, v: {p: {o: v}}, PATHS, st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, max_size=3)),
    st.builds(lambda p, v: {p: {"$exists": v}}, PATHS, st.booleans()),
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=6,
)


@given(FILTERS, st.lists(METADATA, min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_columns_say_what_the_contract_says(document: Any, metadata: list[dict[str, Any]]) -> None:
    condition = parse_filter(document)
    expected = [says(condition, each) for each in metadata]
    assert MetadataColumns(metadata).mask(condition).tolist() == expected


@given(FILTERS, st.lists(METADATA, min_size=3, max_size=6), st.lists(METADATA, min_size=2, max_size=2))
@settings(max_examples=100, deadline=None)
def test_columns_laid_over_with_changes_equal_columns_made_anew(
    document: Any, metadata: list[dict[str, Any]], changes: list[dict[str, Any]]
) -> None:
    condition = parse_filter(document)
    base = MetadataColumns(metadata)
    base.mask(condition)  # so that a kept mask would show
    edited = [changes[0], *metadata[1:], changes[1]]
    layered = lay_over(base, np.array([0, len(metadata)], np.int32), edited)
    assert layered.mask(condition).tolist() == MetadataColumns(edited).mask(condition).tolist()
    again = [changes[0], changes[1], *edited[2:]]
    twice = lay_over(layered, np.array([1], np.int32), again)
    assert twice.mask(condition).tolist() == MetadataColumns(again).mask(condition).tolist()


@given(FILTERS)
@settings(max_examples=100, deadline=None)
def test_a_filter_survives_the_wire(document: Any) -> None:
    condition = parse_filter(document)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(condition), type=Filter) == condition


def test_filters_that_python_takes_for_equal_have_their_own_masks() -> None:
    one, true = parse_filter({"a": 1}), parse_filter({"a": True})
    assert filter_key(one) != filter_key(true)
    columns = MetadataColumns([{"a": 1}, {"a": True}])
    assert columns.mask(one).tolist() == [True, False]
    assert columns.mask(true).tolist() == [False, True]


def test_a_kept_mask_cannot_be_changed_by_who_got_it() -> None:
    columns = MetadataColumns([{"a": 1}])
    with pytest.raises(ValueError, match="read-only"):
        columns.mask(parse_filter({"a": 1}))[0] = False
