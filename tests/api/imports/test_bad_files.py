"""Bad input: the message names the file, the row or column, and what to do; nothing is half-loaded."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.database.scope import TenantScope
from api.imports.load import load_files
from feature_store.loaders.mapping import Mapping
from feature_store.loaders.problems import ImportRefusedError
from tests.api.imports.conftest import Importer

ITEMS = "id,title\na,Tea\nb,Salt\n"
HEADER = "userId,itemId,interactionType,value,timestamp\n"
GOOD = "ann,a,like,1.0,2025-01-01T10:00:00Z\n"


def refusal(importer: Importer, **files: Path) -> str:
    """The message of an import that must be refused and must have loaded nothing."""
    before = importer.counts()
    with pytest.raises(ImportRefusedError) as caught:
        importer.load(**files)
    assert importer.counts() == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("items.csv", "", "is empty"),
        ("items.csv", "id,title\n", "has no records"),
        ("items.jsonl", "\n\n", "has no records"),
        ("items.csv", "sku,title\na,Tea\n", "no column 'id'"),
        ("items.csv", "id,id\na,b\n", "repeated column name"),
        ("items.csv", "id,\na,b\n", "empty or repeated column name"),
        ("items.csv", "id;title\na;Tea\n", "it has id;title"),
        ("items.csv", b"\xff\xfei\x00d\x00\n\x00", "save the file as UTF-8"),
        ("items.xlsx", "x", "is of no known kind"),
        ("items.parquet", "not parquet", "no readable Parquet"),
        ("items.jsonl", '{"id": "a", "Id": "b"}\n', "differ in case alone"),
        ("items.csv", "\n\n", "line 1: is blank"),
        ("items.csv", "\nid,title\na,Tea\n", "line 1: is blank"),
        ("items.csv", "id,__place\na,1\n", "rename it"),
        ("items.jsonl", '{"id": "a", "__place": 1}\n', "rename it"),
        ("items.jsonl", '[{"id": "a"}, {"id": "b"}]\n', "line 1: is no JSON object; write one object a line"),
        ("items.jsonl", '{"id": "a", "": 1}\n', "line 1: has a key without a name"),
    ],
)
def test_a_file_that_is_no_table_of_items_is_refused(
    importer: Importer, name: str, content: str | bytes, words: str
) -> None:
    path = importer.write(name, content)
    message = refusal(importer, items=path)
    assert str(path) in message and words in message


def test_a_file_that_is_not_there_is_refused(importer: Importer) -> None:
    assert "No such file" in refusal(importer, items=importer.folder / "items.csv")


def test_a_missing_column_says_which_there_are_and_where_to_name_another(importer: Importer) -> None:
    items = importer.write("items.csv", ITEMS)
    events = importer.write("events.csv", "user,itemId,interactionType,timestamp\nann,a,like,1735725600\n")
    message = refusal(importer, items=items, interactions=events)
    assert "'userId'" in message and "user, itemId" in message and "`interactions.user`" in message


def test_an_unknown_tenant_is_refused(importer: Importer) -> None:
    path = importer.write("items.csv", ITEMS)
    with pytest.raises(ImportRefusedError, match="create-tenant"):
        load_files(importer.url, TenantScope("nobody"), Mapping(), path, None, importer.folder, importer.steps.append)


BAD_ROWS = [
    (",a,like,1,2025-01-01T10:00:00Z", "userId", "is empty"),
    ("x" * 300 + ",a,like,1,2025-01-01T10:00:00Z", "userId", "has 300 characters"),
    ("a\x07b,a,like,1,2025-01-01T10:00:00Z", "userId", "control character"),
    ("ann,c,like,1,2025-01-01T10:00:00Z", "itemId", "no item"),
    ("ann,a,buy,1,2025-01-01T10:00:00Z", "interactionType", "view, click, like, purchase"),
    ("ann,a,,1,2025-01-01T10:00:00Z", "interactionType", "is empty"),
    ("ann,a,like,five,2025-01-01T10:00:00Z", "value", "'five'"),
    ("ann,a,like,1.5,2025-01-01T10:00:00Z", "value", "from 0 to 1"),
    ("ann,a,like,nan,2025-01-01T10:00:00Z", "value", "from 0 to 1"),
    ("ann,a,like,1,", "timestamp", "is empty"),
    ("ann,a,like,1,yesterday", "timestamp", "'yesterday'"),
    ("ann,a,like,1,2025-02-30T10:00:00Z", "timestamp", "write a time like"),
    ("ann,a,like,1,2025-01-01 10:00:00", "timestamp", "has no UTC offset, though other rows have one"),
    ("ann,a,like,1,2999-01-01T10:00:00Z", "timestamp", "future"),
    ("ann,a,like,1,-86400", "timestamp", "before 1970"),
    ("ann,a,like,1", "", "has 4 fields where the header names 5"),
    ("ann,a,like,1,2025-01-01T10:00:00Z,x", "", "has 6 fields"),
    ("ann,a,like,1.0,2025-01-01T11:00:00+01:00", "", "says the same as line 2"),
    ("ann,a,like,1,2025-01-01T10:00:00Z", "", "says the same as line 2"),
]


def test_a_bad_interaction_is_named_by_line_and_column_and_the_others_are_loaded(importer: Importer) -> None:
    items = importer.write("items.csv", ITEMS)
    bad = "".join(f"{row}\n" for row, _, _ in BAD_ROWS)
    events = importer.write("events.csv", f"{HEADER}{GOOD}{bad}bob,b,view,,2025-01-02T10:00:00Z\n")
    report = importer.load(items, events)
    assert importer.counts() == (2, 2, 2)
    assert report.n_rejected == len(BAD_ROWS)
    for line, ((_, column, words), reject) in enumerate(zip(BAD_ROWS, report.rejected, strict=True), start=3):
        assert (reject.file, reject.place, reject.column) == (str(events), line, column)
        assert words in reject.reason
        assert str(reject).startswith(f"{events}: line {line}")


@pytest.mark.parametrize("time", ["20250131", "2025", "2025-01-01T10:00:00+99:00"])
def test_what_is_no_time_is_not_taken_for_one(importer: Importer, time: str) -> None:
    items = importer.write("items.csv", ITEMS)
    report = importer.load(items, importer.write("events.csv", f"{HEADER}{GOOD}ann,b,like,1,{time}\n"))
    (reject,) = report.rejected
    assert (reject.place, reject.column) == (3, "timestamp")
    assert time in reject.reason and "write a time like" in reject.reason


def test_a_small_epoch_is_one_where_its_unit_is_declared(importer: Importer) -> None:
    items = importer.write("items.csv", ITEMS)
    events = importer.write("events.csv", f"{HEADER}ann,b,like,1,2025\n")
    mapping = {"interactions": {"timestamp": {"column": "timestamp", "unit": "s"}}}
    assert importer.load(items, events, mapping).n_rejected == 0


def test_invalid_utf_8_and_nul_reject_their_line_alone(importer: Importer) -> None:
    path = importer.write("items.csv", b"id,title\na,Tea\nb,\xff\nc,x\0y\nd,Rice\n")
    report = importer.load(path)
    assert [(reject.place, reject.reason) for reject in report.rejected] == [
        (3, "is not UTF-8 text"),
        (4, "holds a NUL character"),
    ]
    assert importer.rows("SELECT id FROM items ORDER BY id") == [("a",), ("d",)]


def test_lines_are_counted_through_fields_that_span_lines(importer: Importer) -> None:
    path = importer.write("items.csv", 'id,title\na,"two\nlines"\n\n' + "x" * 300 + ",long\n")
    (reject,) = importer.load(path).rejected
    assert reject.place == 5


def test_a_stray_quote_costs_its_own_line_alone(importer: Importer) -> None:
    others = "".join(f"i{number},Tea\n" for number in range(3_000))
    path = importer.write("items.csv", f'id,title\na,Salt\n"b,Rice\n{others}"c,"Oil\nd,Soap\ne,"Tea\nwith milk"\n')
    report = importer.load(path)
    assert [(reject.place, reject.row) for reject in report.rejected] == [
        (3, '["\\"b,Rice\\n"]'),
        (3004, '["\\"c,\\"Oil\\n"]'),
    ]
    assert all("double the quotes inside of a field" in reject.reason for reject in report.rejected)
    assert importer.counts()[0] == 3_003  # a, d, e and those between


def test_a_quote_that_makes_lines_one_record_of_another_width_costs_its_own_line_alone(importer: Importer) -> None:
    path = importer.write("items.csv", 'id,title\n"a,Tea\nb,Salt\nc",Rice,x\nd,Oil\n')
    report = importer.load(path)
    assert [reject.place for reject in report.rejected] == [2, 4]
    assert "a quote in it opens a field of several lines" in report.rejected[0].reason
    assert importer.counts()[0] == 2


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_instants_of_parquet_are_read_in_every_unit_and_an_empty_column_of_values_is_none(
    importer: Importer, unit: str
) -> None:
    items = importer.write("items.csv", ITEMS)
    moment = pa.array([1_735_725_600 * 10 ** {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit]], pa.timestamp(unit, tz="UTC"))
    columns = {"userId": ["ann"], "itemId": ["a"], "interactionType": ["like"], "timestamp": moment}
    events = importer.folder / "events.parquet"
    pq.write_table(pa.table({**columns, "value": pa.nulls(1)}), events)
    assert importer.load(items, events).n_rejected == 0
    assert importer.counts()[1] == 1


def test_a_repeated_item_id_keeps_the_first_row(importer: Importer) -> None:
    path = importer.write("items.csv", "id,title\na,Tea\nb,Salt\na,Rice\n")
    report = importer.load(path)
    assert "line 2" in report.rejected[0].reason and report.rejected[0].place == 4
    assert importer.rows("SELECT id, metadata ->> 'title' FROM items ORDER BY id") == [("a", "Tea"), ("b", "Salt")]


BAD_LINES = [
    ("{", "no JSON"),
    ("[1]", "no JSON object"),
    ('{"title": "x"}', "is empty"),
    ('{"id": 1.5}', "neither text nor a whole number"),
    ('{"id": ["x"]}', "neither text nor a whole number"),
    ('{"id": "n", "title": "\\u0000"}', "NUL"),
    ('{"id": "n", "a": ' + "[" * 30 + "]" * 30 + "}", "nested"),
    ('{"id": "n", "a": "' + "x" * 300_000 + '"}', "bytes"),
]


def test_a_bad_line_of_json_is_named(importer: Importer) -> None:
    lines = "\n".join(line for line, _ in BAD_LINES)
    report = importer.load(importer.write("items.jsonl", f'{{"id": "a"}}\n{lines}\n{{"id": "b"}}\n'))
    for number, ((_, words), reject) in enumerate(zip(BAD_LINES, report.rejected, strict=True), start=2):
        assert (reject.word, reject.place) == ("line", number)
        assert words in reject.reason
    assert importer.rows("SELECT id FROM items ORDER BY id") == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("column", "array", "words"),
    [
        ("userId", pa.array([1.5]), "is DOUBLE, and a user's id is text or a whole number"),
        ("itemId", pa.array([[1]]), "an item's id is text or a whole number"),
        ("value", pa.array([True]), "is BOOLEAN, and a value is a number"),
        ("timestamp", pa.array([True]), "a timestamp is a time or an epoch"),
        ("timestamp", pa.array([0], pa.timestamp("us")), "has no time zone"),
    ],
)
def test_a_column_of_the_wrong_type_is_refused_as_a_whole(
    importer: Importer, column: str, array: pa.Array, words: str
) -> None:
    good = {
        "userId": pa.array(["ann"]),
        "itemId": pa.array(["a"]),
        "interactionType": pa.array(["like"]),
        "value": pa.array([1.0]),
        "timestamp": pa.array([1_735_725_600]),
    }
    path = importer.folder / "events.parquet"
    pq.write_table(pa.table({**good, column: array}), path)
    message = refusal(importer, items=importer.write("items.csv", ITEMS), interactions=path)
    assert str(path) in message and repr(column) in message and words in message


def test_a_file_of_bad_rows_alone_loads_nothing_of_the_other_file_either(importer: Importer) -> None:
    items = importer.write("items.csv", ITEMS)
    events = importer.write("events.csv", f"{HEADER}ann,a,like,1,2025-01-01 10:00:00\n")
    message = refusal(importer, items=items, interactions=events)
    assert "none of its 1 records" in message and "line 2" in message and "`timezone`" in message
    assert importer.counts() == (0, 0, 0)


def test_all_rejects_are_in_a_file_that_only_its_owner_reads(importer: Importer) -> None:
    rows = "".join(f"ann,nothing{number},like,1,2025-01-01T10:00:00Z\n" for number in range(25))
    items = importer.write("items.csv", ITEMS)
    report = importer.load(items, importer.write("events.csv", HEADER + GOOD + rows))
    assert (report.n_rejected, len(report.rejected)) == (25, 20)
    assert report.rejects_file is not None
    lines = report.rejects_file.read_text().splitlines()
    assert len(lines) == 25 and "nothing24" in lines[-1]
    assert report.rejects_file.stat().st_mode & 0o077 == 0
