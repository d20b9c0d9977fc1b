"""What users did on each day is counted from the lake: by item, type and activity, on days without gaps."""

from datetime import date, timedelta
from pathlib import Path

from feature_store.daily_counts import SILENT_DAYS, read_daily_counts
from tests.feature_store.lakes import START, interaction, write_lake

DAY = 24 * 60
FIRST = START.date()
GENRES = {f"item-{number}": f'{{"genre": "{("Drama", "Comedy")[number % 2]}"}}' for number in range(8)}
TITLES = {"film": '{"genre": ["drama", "Comedy"], "title": "A film"}', "plain": '{"title": "Another"}'}


def test_days_are_counted_without_gaps_and_a_row_that_is_there_twice_once(tmp_path: Path) -> None:
    rows = [
        interaction(1, "ann", "item-0"),
        interaction(1, "ann", "item-0"),
        interaction(2, "ann", "gone", minutes=10, interaction_type="view"),
        interaction(3, "bob", "item-1", minutes=DAY - 1),
        interaction(4, "ann", "item-1", minutes=2 * DAY),
        interaction(5, "ann", "item-1", minutes=9 * DAY),  # after the last day
    ]
    found = read_daily_counts(write_lake(tmp_path, rows, GENRES), FIRST + timedelta(days=3))
    assert found is not None
    assert found.days == [FIRST + timedelta(days=number) for number in range(4)]
    assert found.events.tolist() == [3, 0, 1, 0]
    assert found.unknown.tolist() == [1, 0, 0, 0]
    assert found.types[0].tolist() == [1, 0, 2, 0]
    assert found.activity[0].tolist() == [1, 1, 0, 0, 0, 0, 0]
    by_item = dict(zip(found.item_ids, found.items.sum(axis=0).tolist(), strict=True))
    assert (by_item["item-0"], by_item["item-1"], sum(by_item.values())) == (1, 2, 3)


def test_windows_end_at_the_newest_day_of_data_that_have_ended(tmp_path: Path) -> None:
    lake = write_lake(tmp_path, [interaction(1, "ann", "item-0")], GENRES)
    for silent, days in ((SILENT_DAYS, SILENT_DAYS + 1), (SILENT_DAYS + 1, 1), (9_000, 1)):
        found = read_daily_counts(lake, FIRST + timedelta(days=silent))
        assert found is not None
        assert len(found.days) == days
    assert read_daily_counts(lake, date(2020, 1, 1)) is None
    assert read_daily_counts(write_lake(tmp_path / "empty", (), GENRES), FIRST) is None


def test_labels_are_those_of_fields_that_items_share(tmp_path: Path) -> None:
    lake = write_lake(tmp_path, [interaction(1, "ann", "film")], {**GENRES, **TITLES})
    found = read_daily_counts(lake, FIRST)
    assert found is not None
    (genre,) = found.labels
    assert genre.field == "genre"
    place = found.item_ids.index("film")
    assert dict(zip(genre.labels, genre.shares[[place]].toarray()[0].tolist(), strict=True)) == {
        "drama": 0.5,
        "comedy": 0.5,
    }
    assert genre.shares[[found.item_ids.index("plain")]].sum() == 0
