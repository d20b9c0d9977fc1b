"""`python -m training evaluate` on data that is hardly any: sensible figures or one line, and never NaN."""

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from training.cli import app

pytestmark = pytest.mark.fit

HEAD = "user_id,item_id,timestamp"
START = 1_700_000_000
Rows = list[tuple[str, str, int]]


def events(rows: Rows) -> str:
    return "\n".join([HEAD, *(f"{user},{item},{START + 3600 * hour}" for user, item, hour in rows)]) + "\n"


def evaluate(folder: Path, rows: Rows, *arguments: str) -> Result:
    (folder / "events.csv").write_text(events(rows))
    command = ["evaluate", "--interactions", str(folder / "events.csv"), "--out", str(folder / "out.json")]
    return CliRunner().invoke(
        app, [*command, "--models", "popularity,item-knn,collaborative", "--threads", "1", *arguments]
    )


CIRCLE: Rows = [(f"u{n % 6}", f"i{(n * 5) % 7}", n) for n in range(42)]
ODD: dict[str, tuple[Rows, tuple[str, ...]]] = {
    "a user with one event": ([*CIRCLE, ("once", "i3", 41)], ()),
    "users with one or two events among others": (
        [*CIRCLE, ("once", "i3", 5), ("twice", "i3", 6), ("twice", "i1", 7)],
        ("--protocol", "leave-one-out", "--exclude-seen", "none"),
    ),
    "one item": ([(f"u{n}", "only", n) for n in range(20)], ("--exclude-seen", "none")),
    "one item for each user, leaving one out": (
        [("u", "only", n) for n in range(4)],
        ("--protocol", "leave-one-out", "--exclude-seen", "none"),
    ),
    "fewer items than places": ([(f"u{n % 5}", f"i{n % 3}", n) for n in range(40)], ("--exclude-seen", "none")),
    "only users whom nobody knew": ([(f"u{n}", f"i{n % 4}", n) for n in range(30)], ()),
    "one moment, leaving one out": (
        [(f"u{n % 6}", f"i{(n * 5) % 7}", 1) for n in range(42)],
        ("--protocol", "leave-one-out", "--exclude-seen", "none"),
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_data_has_figures_without_nan(name: str, tmp_path: Path) -> None:
    rows, arguments = ODD[name]
    result = evaluate(tmp_path, rows, *arguments)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out.json").read_text(), parse_constant=pytest.fail)
    assert found["results"]
    for row in found["results"]:
        for metric, each in row["metrics"].items():
            assert each["low"] <= each["mean"] <= each["high"], metric
            assert all(map(math.isfinite, each.values())), metric
            assert metric == "novelty" or (each["low"] >= -1e-9 and each["high"] <= 1 + 1e-9), (metric, each)


def test_items_that_nobody_touched_are_ranked_and_count_in_the_catalogue(tmp_path: Path) -> None:
    items = [f"i{n}" for n in range(7)] + [f"untouched{n}" for n in range(7)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *(f"{item},name {item}" for item in items)]))
    result = evaluate(tmp_path, CIRCLE, "--items", str(tmp_path / "items.csv"), "--exclude-seen", "none")
    assert result.exit_code == 0 and "full ranking of 14 items" in " ".join(result.stdout.split())
    found = json.loads((tmp_path / "out.json").read_text())
    assert all(row["metrics"]["coverage@10"]["mean"] <= 10 / 14 + 1e-9 for row in found["results"][:1])


@pytest.mark.parametrize(
    ("rows", "arguments", "words"),
    [
        ([("u", "a", 1), ("u", "b", 2)], (), "at least 3 events"),
        ([(f"u{n}", f"i{n % 3}", 1) for n in range(30)], (), "different times"),
        ([("u", "only", n) for n in range(20)], (), "there is no query"),
        ([("u", "a", 1), ("v", "b", 2)], ("--protocol", "leave-one-out"), "no user has three events"),
    ],
)
def test_what_gives_no_query_ends_with_one_line(
    rows: Rows, arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    result = evaluate(tmp_path, rows, *arguments)
    assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1, result.output
    assert not (tmp_path / "out.json").exists()
