"""A data set comes from a snapshot or from events with outside ids, and says what is wrong with either."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import schemas
from tests.training.catalogue import build_dataset
from training.data.dataset import ItemTable, from_events, load_snapshot
from training.data.stored_metadata import StoredMetadata
from training.models.content_based.model import ContentBased
from training.models.contract import RuntimeOptions

EVENTS = pd.DataFrame(
    {
        "user_id": ["zoe", "ada", "ada", "zoe"],
        "item_id": ["x", "y", "x", "y"],
        "interaction_type": ["like", "view", "purchase", "click"],
        "value": [None, 0.1, None, 1.0],
        "timestamp": pd.to_datetime(["2024-01-02", "2024-01-03", "2024-01-01", "2024-01-01"], utc=True),
    }
)
ITEMS = pd.DataFrame({"item_id": ["y", "x", "new"], "metadata": ['{"a": 1}', '{"a": 2}', "{}"]})
DAY = 86_400_000_000
FIRST = 1_704_067_200_000_000  # 2024-01-01


def test_events_are_sorted_by_user_and_time_and_items_keep_their_place() -> None:
    dataset = from_events(EVENTS, ITEMS)
    events = dataset.interactions
    assert events.users.tolist() == [0, 0, 1, 1]  # ada, zoe
    assert events.items.tolist() == [1, 0, 0, 1]
    assert events.timestamps.tolist() == [FIRST, FIRST + 2 * DAY, FIRST, FIRST + DAY]
    assert events.weights.tolist() == pytest.approx([1.0, 0.1, 1.0, 0.8])  # its own value, else that of its type
    assert dataset.items.ids.tolist() == ["y", "x", "new"]
    assert dataset.items.metadata[1] == {"a": 2}
    assert (dataset.n_users, dataset.n_items) == (2, 3)


def test_arrow_and_integer_microseconds_give_the_same() -> None:
    table = pa.Table.from_pandas(EVENTS.assign(timestamp=[FIRST + DAY, FIRST + 2 * DAY, FIRST, FIRST]))
    assert from_events(table, ITEMS).interactions.timestamps.tolist() == (
        from_events(EVENTS, ITEMS).interactions.timestamps.tolist()
    )


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (EVENTS.drop(columns="user_id"), "user_id"),
        (EVENTS.assign(item_id="unknown"), "'unknown' has events"),
        (EVENTS.assign(interaction_type="stare"), "interaction_type"),
        (EVENTS.assign(user_id=None), "events have no user_id"),
        (EVENTS.assign(timestamp=pd.NaT), "events have no timestamp"),
        (EVENTS.assign(value=[0.5, *[1.5] * (len(EVENTS) - 1)]), "between 0 and 1, not at 1.5"),
        (EVENTS.assign(value=float("inf")), "between 0 and 1, not at inf"),
    ],
)
def test_bad_events_are_refused_by_name(events: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_events(events, ITEMS)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (pd.concat([ITEMS, ITEMS]), "more than once"),
        (ITEMS.assign(metadata="[1]"), r"must be an object, not \[1\]"),
        (ITEMS.assign(metadata=3), "must be an object, not 3"),
    ],
)
def test_bad_items_are_refused_by_name(items: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_events(EVENTS, items)


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA])
def test_an_item_may_lack_metadata(nothing: object) -> None:
    bare = from_events(EVENTS, ITEMS.assign(metadata=[nothing] * len(ITEMS)))
    assert bare.items.metadata == [{}] * len(ITEMS)


def write_snapshot(folder: Path, positions: list[int]) -> None:
    pq.write_table(
        pa.table(
            [[0, 1], [1, 0], [2, 3], [0.5, 1.0], [10, 20]],
            schema=schemas.SNAPSHOT_INTERACTIONS,
        ),
        folder / "interactions.parquet",
    )
    pq.write_table(
        pa.table([positions, ["a", "b"], ['{"k": 1}', "{}"], [True, False]], schema=schemas.SNAPSHOT_ITEMS),
        folder / "items.parquet",
    )
    (folder / "manifest.json").write_text(json.dumps({"snapshot_id": "abc", "n_users": 3}))


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_snapshot(tmp_path, [0, 1])
    dataset = load_snapshot(tmp_path, max_events=7)
    assert dataset.interactions.items.tolist() == [1, 0]
    assert dataset.interactions.weights.dtype == np.float32
    assert list(dataset.items.metadata) == [{"k": 1}, {}]
    assert dataset.items.active.tolist() == [True, False]
    assert (dataset.n_users, dataset.snapshot_id, dataset.max_events) == (3, "abc", 7)


def test_a_snapshot_with_items_out_of_order_is_refused(tmp_path: Path) -> None:
    write_snapshot(tmp_path, [1, 0])
    with pytest.raises(ValueError, match="row i must hold item position i"):
        load_snapshot(tmp_path)


def test_a_snapshot_without_a_column_is_refused_with_the_file_and_the_column(tmp_path: Path) -> None:
    write_snapshot(tmp_path, [0, 1])
    path = tmp_path / "interactions.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["weight"]), path)
    with pytest.raises(ValueError, match=r"interactions.parquet: columns \['weight'\]"):
        load_snapshot(tmp_path)


def test_metadata_are_decoded_where_they_are_read_and_not_kept() -> None:
    objects = [{"n": number} for number in range(9_000)]
    texts = [json.dumps(each) for each in objects]
    metadata = StoredMetadata(pa.chunked_array([texts[:10], texts[10:]]))
    assert list(metadata) == objects and list(metadata[-3:]) == objects[-3:]
    assert metadata[5_000] == objects[5_000] and metadata[-1] == objects[-1]
    assert metadata[0] is not metadata[0]
    with pytest.raises(IndexError):
        metadata[9_000]
    with pytest.raises(msgspec.ValidationError):
        list(StoredMetadata(pa.chunked_array([["{}", "[1]"]])))


@pytest.mark.fit
def test_a_fit_reads_the_same_from_stored_metadata_as_from_objects() -> None:
    dataset = build_dataset()
    texts = pa.chunked_array([[json.dumps(each) for each in dataset.items.metadata]])
    stored = ItemTable(dataset.items.ids, StoredMetadata(texts), dataset.items.active)
    assert stored.metadata_values == dataset.items.metadata_values
    histories, options = dataset.histories(), RuntimeOptions(threads=1)
    scores = [ContentBased().fit(each, options).score(histories) for each in (dataset, replace(dataset, items=stored))]
    assert np.array_equal(scores[0], scores[1])
