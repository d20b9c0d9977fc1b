"""What an import adds, and that importing it again changes nothing."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.loaders import readers
from feature_store.loaders.mapping import read_mapping
from feature_store.loaders.problems import ImportRefusedError
from tests.api.imports.conftest import Importer
from tests.fixtures.platform import ROOT

ITEMS = "id,title,price,code,vegan,tags\na,Tea,2.5,007,true,green|hot\nb,Salt,1,010,false,\nc,Rice,,042,,\n"
EVENTS = "userId,itemId,interactionType,value,timestamp\nann,a,like,0.5,2025-01-01T10:00:00Z\nbob,b,view,,1735725600\n"


def test_columns_become_metadata_of_the_type_they_look_like(importer: Importer) -> None:
    importer.load(importer.write("items.csv", ITEMS))
    assert dict(importer.rows("SELECT id, metadata FROM items")) == {
        "a": {"title": "Tea", "price": 2.5, "code": "007", "vegan": True, "tags": "green|hot"},
        "b": {"title": "Salt", "price": 1.0, "code": "010", "vegan": False},
        "c": {"title": "Rice", "code": "042"},
    }


def test_a_mapping_names_and_types_columns(importer: Importer) -> None:
    mapping = {
        "id": "code",
        "active": "vegan",
        "metadata": {
            "name": "title",
            "labels": {"column": "tags", "type": "list"},
            "cents": {"sql": "CAST(nullif(price, '') AS DOUBLE) * 100"},
            "shop": {"constant": "corner"},
        },
    }
    importer.load(importer.write("items.csv", ITEMS), mapping={"items": mapping})
    rows = importer.rows("SELECT id, is_active, metadata FROM items ORDER BY id")
    assert rows == [
        ("007", True, {"name": "Tea", "labels": ["green", "hot"], "cents": 250, "shop": "corner"}),
        ("010", False, {"name": "Salt", "cents": 100, "shop": "corner"}),
        ("042", True, {"name": "Rice", "shop": "corner"}),
    ]


def test_a_declared_type_rejects_what_is_not_of_it(importer: Importer) -> None:
    path = importer.write("items.csv", "id,price\na,2\nb,cheap\n")
    report = importer.load(path, mapping={"items": {"metadata": {"price": {"column": "price", "type": "number"}}}})
    assert [(reject.place, reject.column) for reject in report.rejected] == [(3, "price")]
    assert "'cheap'" in report.rejected[0].reason


def test_json_lines_keep_their_structure(importer: Importer) -> None:
    document = '{"id": 7, "title": "Tea", "n": {"a": [1, 2.50, null]}, "none": null, "big": 12345678901234567890123}'
    importer.load(importer.write("items.jsonl", f'{document}\n{{"id": "b/c", "tags": ["x"]}}\n'))
    assert dict(importer.rows("SELECT id, metadata FROM items")) == {
        "7": {"title": "Tea", "n": {"a": [1, 2.5, None]}, "none": None, "big": 12345678901234567890123},
        "b/c": {"tags": ["x"]},
    }


def test_a_column_named_metadata_is_the_metadata(importer: Importer) -> None:
    importer.load(importer.write("items.jsonl", '{"id": "a", "metadata": {"t": 1}, "isActive": false}\n'))
    assert importer.rows("SELECT metadata, is_active FROM items") == [({"t": 1}, False)]
    importer.load(importer.write("items.csv", 'id,metadata\nb,"{""t"": 2}"\n'))
    assert importer.rows("SELECT metadata FROM items WHERE id = 'b'") == [({"t": 2},)]


def test_parquet_is_read_by_its_own_types(importer: Importer) -> None:
    items = importer.folder / "items.parquet"
    table = {"id": [1, 2], "price": [1.5, float("nan")], "tags": [["x"], None], "size": [{"w": 1}, {"w": 2}]}
    pq.write_table(pa.table(table), items)
    events = importer.folder / "events.parquet"
    times = pa.array([1_735_725_600_000_000, 0], pa.timestamp("us", "Europe/Berlin"))
    pq.write_table(
        pa.table({"user_id": [9, 9], "item_id": [1, 2], "interaction_type": ["like", "view"], "timestamp": times}),
        events,
    )
    importer.load(items, events)
    assert dict(importer.rows("SELECT id, metadata FROM items")) == {
        "1": {"price": 1.5, "tags": ["x"], "size": {"w": 1}},
        "2": {"size": {"w": 2}},
    }
    assert importer.rows("SELECT user_id, item_id, occurred_at FROM interactions ORDER BY occurred_at DESC") == [
        ("9", "1", datetime(2025, 1, 1, 10, tzinfo=UTC)),
        ("9", "2", datetime(1970, 1, 1, tzinfo=UTC)),
    ]


def test_words_of_types_are_translated(importer: Importer) -> None:
    rows = "ann,a,buy,1735725600\nann,a,like,1735725600\n"
    events = importer.write("events.csv", f"userId,itemId,event,timestamp\n{rows}")
    mapping = {"type": {"column": "event", "map": {"buy": "purchase"}}}
    importer.load(importer.write("items.csv", "id\na\n"), events, {"interactions": mapping})
    assert importer.rows("SELECT interaction_type FROM interactions ORDER BY 1") == [("like",), ("purchase",)]


def test_loading_again_adds_nothing_twice_and_moves_no_version(importer: Importer) -> None:
    files = importer.write("items.csv", ITEMS), importer.write("events.csv", EVENTS)
    first = importer.load(*files)
    assert (first.counts.items_added, first.counts.users_added, first.counts.interactions_added) == (3, 2, 2)
    assert importer.rows("SELECT version FROM catalogues") == [(1,)]
    # The same events in another notation are the same events.
    importer.write("events.csv", EVENTS.replace("0.5", "0.50").replace("1735725600", "1735725600000"))
    again = importer.load(*files)
    counts = again.counts
    assert (counts.items_added, counts.items_changed, counts.users_added, counts.interactions_added) == (0, 0, 0, 0)
    assert importer.rows("SELECT version FROM catalogues") == [(1,)]
    assert importer.counts() == (3, 2, 2)


def test_edited_items_change_and_move_the_version_once(importer: Importer) -> None:
    importer.load(importer.write("items.csv", ITEMS))
    report = importer.load(importer.write("items.csv", ITEMS.replace("Tea", "Green tea").replace("Rice", "Red rice")))
    assert (report.counts.items_added, report.counts.items_changed, report.counts.catalogue_version) == (0, 2, 2)
    assert importer.rows("SELECT id FROM items WHERE version = 2 ORDER BY id") == [("a",), ("c",)]


def test_a_file_that_says_nothing_of_activity_leaves_hidden_items_hidden(importer: Importer) -> None:
    path = importer.write("items.csv", ITEMS)
    importer.load(path)
    importer.rows("UPDATE items SET is_active = false WHERE id = 'a' RETURNING id")
    assert importer.rows("SELECT 1") == [(1,)]
    importer.load(importer.write("items.csv", ITEMS.replace("Tea", "Green tea")))
    assert importer.rows("SELECT metadata ->> 'title', is_active FROM items WHERE id = 'a'") == [("Green tea", False)]


def test_interactions_alone_go_to_items_that_are_there(importer: Importer) -> None:
    importer.load(importer.write("items.csv", 'id\n"a,""b"\n'))
    events = importer.write(
        "events.jsonl", ('{"userId": "ann", "itemId": "a,\\"b", "interactionType": "like", "timestamp": 1735725600}\n')
    )
    assert importer.load(interactions=events).counts.interactions_added == 1


def test_users_are_as_active_as_their_newest_event(importer: Importer) -> None:
    events = importer.write(
        "events.csv",
        "userId,itemId,interactionType,timestamp\nann,a,like,2025-01-02T00:00:00Z\nann,a,view,2025-01-01T00:00:00Z\n",
    )
    importer.load(importer.write("items.csv", "id\na\n"), events)
    assert importer.rows("SELECT id, last_active_at FROM users") == [("ann", datetime(2025, 1, 2, tzinfo=UTC))]


def test_the_tenants_exclude_seen_is_set_where_the_mapping_says_so(importer: Importer) -> None:
    path = importer.write("items.csv", ITEMS)
    importer.load(path)
    assert importer.rows("SELECT exclude_seen FROM tenants") == [("all",)]
    importer.load(path, mapping={"exclude_seen": "none"})
    assert importer.rows("SELECT exclude_seen FROM tenants") == [("none",)]


def test_expressions_of_a_mapping_reach_no_file(importer: Importer, tmp_path: Path) -> None:
    secret = importer.write("secret.csv", "x\n1\n")
    with pytest.raises(ImportRefusedError, match=r"items\.metadata\.x"):
        importer.load(
            importer.write("items.csv", ITEMS),
            mapping={"items": {"metadata": {"x": {"sql": f"(SELECT max(x) FROM read_csv('{secret}'))"}}}},
        )
    assert importer.counts() == (0, 0, 0)


def test_a_file_larger_than_a_chunk_is_read_to_its_end(importer: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "CHUNK", 10)
    total = 27
    rows = "".join(f"u{number % 100},a,view,,{1_700_000_000 + number}\n" for number in range(total))
    events = importer.write("events.csv", "userId,itemId,interactionType,value,timestamp\n" + rows)
    report = importer.load(importer.write("items.csv", "id\na\n"), events)
    assert report.counts.interactions_added == total


def test_the_mapping_of_the_documentation_works(importer: Importer, tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "imports.md").read_text(), re.DOTALL)
    mapping = importer.write("mapping.yaml", example)
    items = importer.write("items.csv", "sku;name;price;tags;stock\na;Tea;2.5;x|y;3\nb;Salt;1;;0\n")
    events = importer.write("events.csv", "customer;sku;event;rating;at\nann;a;buy;4;2025-01-01 11:00:00\n")
    importer.load(items, events, read_mapping(mapping).model_dump())
    assert importer.rows("SELECT id, is_active, metadata FROM items ORDER BY id") == [
        ("a", True, {"title": "Tea", "price": 2.5, "tags": ["x", "y"]}),
        ("b", False, {"title": "Salt", "price": 1}),
    ]
    assert importer.rows("SELECT interaction_type, round(value::numeric, 2)::float, occurred_at FROM interactions") == [
        ("purchase", 0.8, datetime(2025, 1, 1, 10, tzinfo=UTC))
    ]


def test_what_an_import_stages_lies_where_erasures_look_for_it_and_is_gone_afterwards(importer: Importer) -> None:
    staged: list[str] = []

    class Steps(list[str]):
        def append(self, step: str) -> None:
            staged.extend(path.name for path in (importer.folder / "rejects").glob(".scratch-*/import.duckdb"))

    importer.steps = Steps()
    importer.load(importer.write("items.csv", ITEMS))
    assert staged
    assert list((importer.folder / "rejects").iterdir()) == []
