"""Files of any make become one data set, or one line says what is wrong with them."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from training.cli import app
from training.data.loaders import LoadedDataset, load_dataset_files

HEAD = "user_id,item_id,timestamp"
SECOND = 1_700_000_000
MICROS = SECOND * 1_000_000


def text(folder: Path, body: str, name: str = "events.csv") -> Path:
    path = folder / name
    path.write_text(body)
    return path


def read(folder: Path, body: str, items: Path | None = None) -> LoadedDataset:
    return load_dataset_files(text(folder, body), items)


@pytest.mark.parametrize(
    "moment",
    [
        SECOND,
        f"{SECOND}.0",
        SECOND * 1_000,
        MICROS,
        SECOND * 1_000_000_000,
        datetime.fromtimestamp(SECOND, UTC).isoformat(),
        datetime.fromtimestamp(SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        datetime.fromtimestamp(SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    ],
)
def test_timestamps_are_understood_in_every_unit_and_as_text(tmp_path: Path, moment: object) -> None:
    loaded = read(tmp_path, f"{HEAD}\nu,a,{moment}\n")
    assert loaded.dataset.interactions.timestamps.tolist() == [MICROS] and loaded.has_dates


@pytest.mark.parametrize(
    "times",
    [
        pa.array([MICROS], pa.timestamp("us", tz="Europe/Berlin")),
        pa.array([SECOND * 10**9], pa.timestamp("ns")),
        pa.array([SECOND], pa.int32()),
        pa.array([float(SECOND)], pa.float64()),
        pa.array([Decimal(SECOND)], pa.decimal128(20, 0)),
        pa.array([str(SECOND)], pa.string()),
        pa.array([str(SECOND)]).dictionary_encode(),
        pa.array([datetime.fromtimestamp(SECOND, UTC).isoformat()], pa.large_string()),
    ],
)
def test_parquet_may_hold_timestamps_in_any_type(tmp_path: Path, times: pa.Array) -> None:
    pq.write_table(pa.table({"user_id": [7], "item_id": ["a"], "timestamp": times}), tmp_path / "events.parquet")
    assert load_dataset_files(tmp_path / "events.parquet", None).dataset.interactions.timestamps.tolist() == [MICROS]


def test_a_day_is_a_moment_too(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"user_id": ["u"], "item_id": ["a"], "timestamp": [date(2024, 1, 2)]}), tmp_path / "events.parquet"
    )
    found = load_dataset_files(tmp_path / "events.parquet", None).dataset.interactions.timestamps
    assert found.tolist() == [int(datetime(2024, 1, 2, tzinfo=UTC).timestamp()) * 1_000_000]


def test_small_numbers_are_positions_and_that_is_said(tmp_path: Path) -> None:
    loaded = read(tmp_path, f"{HEAD}\nu,a,0\nu,b,1\nu,c,2\n")
    assert loaded.dataset.interactions.timestamps.tolist() == [0, 1, 2]
    assert not loaded.has_dates and "positions" in loaded.remarks[0]
    halves = read(tmp_path, f"{HEAD}\nu,a,0.5\nu,b,0.25\n").dataset.interactions
    assert halves.items.tolist() == [1, 0]  # fractions keep their order


def test_ids_are_text_as_it_stands(tmp_path: Path) -> None:
    loaded = read(tmp_path, f"{HEAD}\n007,1.0,{SECOND}\n7,NA,{SECOND}\nnull,1,{SECOND}\n")
    assert loaded.dataset.n_users == 3
    assert loaded.dataset.items.ids.tolist() == ["1", "1.0", "NA"]


def test_numbers_in_one_file_and_text_in_the_other_are_the_same_id(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": [3, 5], "title": ["x", "y"]}), tmp_path / "items.parquet")
    loaded = read(tmp_path, f"{HEAD}\nu,5,{SECOND}\n", tmp_path / "items.parquet")
    assert loaded.dataset.items.ids[loaded.dataset.interactions.items].tolist() == ["5"]
    assert loaded.dataset.items.metadata == [{"title": "x"}, {"title": "y"}]


def test_types_and_values_are_taken_where_they_are_known(tmp_path: Path) -> None:
    body = f"{HEAD},interaction_type,value\nu,a,{SECOND},purchase,\nu,b,{SECOND},,0.3\nu,c,{SECOND},like,NaN\n"
    events = read(tmp_path, body).dataset.interactions
    assert events.weights.tolist() == pytest.approx([1.0, 0.3, 0.8])


def test_metadata_is_plain_and_holds_nothing_unknown(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "item_id": ["a", "b"],
        "price": [float("nan"), float("inf")],
        "tags": [["x", None], []],
        "seen": [datetime(2024, 1, 2, tzinfo=UTC), None],
        "cost": [Decimal("1.5"), None],
        "metadata": ['{"title": "A", "deep": {"n": null}}', None],
        "blank": ["", "  "],
    }
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    dataset = read(tmp_path, f"{HEAD}\nu,a,{SECOND}\n", tmp_path / "items.parquet").dataset
    first = {"tags": ["x"], "seen": "2024-01-02T00:00:00+00:00", "cost": 1.5, "title": "A", "deep": {}}
    assert dataset.items.metadata == [first, {"tags": []}]


def test_items_that_the_list_lacks_are_added_without_metadata(tmp_path: Path) -> None:
    items = text(tmp_path, "item_id,title\na,Apples\n", "items.csv")
    loaded = read(tmp_path, f"{HEAD}\nu,a,{SECOND}\nu,z,{SECOND}\n", items)
    assert loaded.dataset.items.ids.tolist() == ["a", "z"]
    assert loaded.dataset.items.metadata == [{"title": "Apples"}, {}]
    assert "lacks 1 items" in loaded.remarks[-1]


BAD_EVENTS = {
    "": "is empty",
    f"{HEAD}\n": "has no rows",
    "user_id,item_id\nu,a\n": "lacks the column timestamp",
    "user,item_id,timestamp\nu,a,1\n": "lacks the column user_id; it has user",
    "user_id,user_id,item_id,timestamp\nu,v,a,1\n": "several columns user_id",
    f"{HEAD}\nu,a,{SECOND}\nu,,{SECOND}\n": "row 2: item_id is missing",
    f"{HEAD}\nu,a,\nu,b,{SECOND}\n": "row 1: timestamp is missing",
    f"{HEAD}\nu,a,yesterday\nu,b,today\n": "row 1: timestamp is neither .* 'yesterday' .and in 1 more",
    f"{HEAD}\nu,a,inf\n": "row 1: timestamp is no finite number",
    f"{HEAD}\nu,a,1e30\n": "past all dates",
    f"{HEAD}\nu,a,true\n": "it must be a date-time or a number",
    f"{HEAD}\nu,a\n": "cannot be read",
    f"{HEAD},value\nu,a,{SECOND},inf\n": "row 1: value is not from 0 to 1",
    f"{HEAD},value\nu,a,{SECOND},5\n": "row 1: value is not from 0 to 1",
    f"{HEAD},value\nu,a,{SECOND},high\n": "value is of type string",
    f"{HEAD},interaction_type\nu,a,{SECOND},bought\n": "row 1: interaction_type is none of view, .*'bought'",
}


@pytest.mark.parametrize(("body", "words"), BAD_EVENTS.items())
def test_bad_events_are_refused_in_one_line(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(tmp_path, body)
    result = CliRunner().invoke(app, ["evaluate", "--interactions", str(tmp_path / "events.csv")])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output


BAD_ITEMS = {
    "item_id,title\na,x\nb,y\na,z\n": "row 3: item_id is there twice: 'a'",
    "id,title\na,x\n": "lacks the column item_id",
    "item_id,metadata\na,{broken\n": "row 1: metadata is no JSON",
    "item_id,metadata\na,[1]\n": "row 1: metadata is no object",
    "item_id,title\n,x\n": "row 1: item_id is missing",
}


@pytest.mark.parametrize(("body", "words"), BAD_ITEMS.items())
def test_bad_items_are_refused_in_one_line(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(tmp_path, f"{HEAD}\nu,a,{SECOND}\n", text(tmp_path, body, "items.csv"))


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "nowhere.csv", "no such file"),
        (text(tmp_path, "x", "events.xlsx"), "unknown extension"),
        (text(tmp_path, "no parquet at all", "events.parquet"), "cannot be read"),
        (tmp_path, "no such file"),
    ):
        with pytest.raises(ValueError, match=words):
            load_dataset_files(path, None)
    latin = tmp_path / "latin.csv"
    latin.write_bytes(f"{HEAD}\nJos\xe9,a,{SECOND}\n".encode("latin-1"))
    with pytest.raises(ValueError, match="cannot be read"):
        load_dataset_files(latin, None)


def test_rows_may_come_in_any_order_and_repeat(tmp_path: Path) -> None:
    rows = [f"u{n % 3},i{n % 5},{SECOND + n}" for n in range(30)]
    rng = np.random.default_rng(0)
    shuffled = [rows[place] for place in rng.permutation(30)]
    one = read(tmp_path, "\n".join([HEAD, *rows, rows[0]])).dataset.interactions
    other = read(tmp_path, "\n".join([HEAD, rows[0], *shuffled])).dataset.interactions
    pd.testing.assert_frame_equal(pd.DataFrame(vars(one)), pd.DataFrame(vars(other)))
    assert len(one) == 31
