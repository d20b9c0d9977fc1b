"""Checks of a tenant's lake before features are built from it. Each check returns counts and a description."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import columns as c
from feature_store.lake import Cursor, TenantLake
from feature_store.query_database import query_database
from feature_store.schemas import LAKE_INTERACTIONS, LAKE_ITEMS

EXPORT_MAX_AGE = timedelta(hours=24)

_TYPES = ", ".join(f"'{name}'" for name in c.INTERACTION_TYPES)


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: whether it passed, a description, and the counts behind it."""

    passed: bool
    description: str
    counts: dict[str, int | str]


def check_lake(lake: TenantLake, at_least: int, now: datetime) -> dict[tuple[str, str], Finding]:
    """Run every check of one tenant's lake. The keys are pairs of (`interactions` or `items`, name of the check).

    Where a schema differs, the other checks cannot read the files and fail.

    Args:
        at_least: the number of interactions that training needs.
        now: the present time, with a time zone.
    """
    interactions, (_, items) = lake.interaction_files(), lake.items_file()
    schemas = {
        ("interactions", "schema"): check_schema(interactions, LAKE_INTERACTIONS),
        ("items", "schema"): check_schema([items], LAKE_ITEMS),
    }
    rest: dict[tuple[str, str], Callable[[], Finding]] = {
        ("interactions", "keys"): lambda: check_interaction_keys(interactions),
        ("interactions", "volume"): lambda: check_volume(interactions, items, at_least),
        ("interactions", "freshness"): lambda: check_freshness(interactions, lake.cursor(), now),
        ("interactions", "duplicates"): lambda: check_duplicates(interactions),
        ("items", "keys"): lambda: check_item_keys(items),
    }
    if all(finding.passed for finding in schemas.values()):
        return schemas | {name: check() for name, check in rest.items()}
    return schemas | dict.fromkeys(rest, Finding(False, "not checked: a file has another schema", {}))


CHECKS = {
    ("interactions", "schema"): "Every file has the columns and types of the lake.",
    ("interactions", "keys"): "Ids are legal, types are known, values lie between 0 and 1.",
    ("interactions", "volume"): "There are enough interactions with items of the catalogue to train on.",
    ("interactions", "freshness"): "The last export is no older than a day.",
    ("interactions", "duplicates"): "No interaction id stands for two different interactions.",
    ("items", "schema"): "The catalogue's file has the columns and types of the lake.",
    ("items", "keys"): "Item ids are legal and unique, and metadata is a JSON object.",
}
"""The checks of `check_lake` with their descriptions, which Dagster lists before they run."""


def check_schema(files: Sequence[Path], schema: pa.Schema) -> Finding:
    """Whether every file has the schema of the lake: names, types and order of columns."""
    wrong = {file: _difference(pq.read_schema(file), schema) for file in files}
    wrong = {file: difference for file, difference in wrong.items() if difference}
    counts: dict[str, int | str] = {"files": len(files), "files_of_another_schema": len(wrong)}
    if not wrong:
        return Finding(True, f"all {len(files)} files have the lake's schema", counts)
    first, difference = next(iter(wrong.items()))
    return Finding(False, f"{len(wrong)} of {len(files)} files have another schema, as {first}: {difference}", counts)


def check_interaction_keys(files: Sequence[Path]) -> Finding:
    """Ids are present, at most 256 characters long and without control characters; types and values are legal."""
    return _no_bad_rows(
        files,
        LAKE_INTERACTIONS,
        {
            "interactions_without_id": f"{c.INTERACTION_ID} IS NULL OR {c.INTERACTION_ID} = ''",
            "illegal_user_ids": _illegal_id(c.USER_ID),
            "illegal_item_ids": _illegal_id(c.ITEM_ID),
            "unknown_types": f"{c.INTERACTION_TYPE} IS NULL OR {c.INTERACTION_TYPE} NOT IN ({_TYPES})",
            "values_outside_0_1": f"NOT coalesce({c.VALUE} BETWEEN 0 AND 1, true)",
            "without_time": f"{c.TIMESTAMP} IS NULL OR {c.INGESTED_AT} IS NULL",
        },
    )


def check_item_keys(file: Path) -> Finding:
    """Item ids are legal and unique; metadata is a JSON object."""
    keys = _no_bad_rows(
        [file],
        LAKE_ITEMS,
        {
            "illegal_item_ids": _illegal_id(c.ITEM_ID),
            "metadata_not_an_object": f"coalesce(json_type({c.METADATA}), '') <> 'OBJECT'",
        },
    )
    repeated = _row(file, f"SELECT count(*) - count(DISTINCT {c.ITEM_ID}) FROM read_parquet(?)", [str(file)])[0]  # noqa: S608
    counts = keys.counts | {"repeated_item_ids": repeated}
    if repeated:
        return Finding(False, f"{repeated} items repeat an id; {keys.description}", counts)
    return Finding(keys.passed, keys.description, counts)


def check_volume(files: Sequence[Path], items_file: Path, at_least: int) -> Finding:
    """There are enough interactions with items of the catalogue to train on."""
    usable, users, items = (0, 0, 0)
    if files:
        usable, users, items = _row(
            files[0],
            f"SELECT count(DISTINCT {c.INTERACTION_ID}), count(DISTINCT {c.USER_ID}), count(DISTINCT {c.ITEM_ID}) "  # noqa: S608
            f"FROM read_parquet(?) SEMI JOIN read_parquet(?) AS items USING ({c.ITEM_ID})",
            [_names(files), str(items_file)],
        )
    counts: dict[str, int | str] = {"interactions": usable, "users": users, "items": items, "needed": at_least}
    if usable < at_least:
        return Finding(False, f"{usable} interactions, {at_least - usable} more until the first model", counts)
    return Finding(True, f"{usable} interactions of {users} users with {items} items of the catalogue", counts)


def check_freshness(files: Sequence[Path], cursor: Cursor, now: datetime) -> Finding:
    """The last export is no older than a day. Events dated later than they arrived, by over 5 minutes, are counted."""
    future, newest = (0, None)
    if files:
        future, newest = _row(
            files[0],
            f"SELECT count(*) FILTER ({c.TIMESTAMP} > {c.INGESTED_AT} + {c.CLOCK_TOLERANCE}), "  # noqa: S608
            f"max({c.INGESTED_AT})::VARCHAR FROM read_parquet(?)",
            [_names(files)],
        )
    counts: dict[str, int | str] = {
        "events_after_ingestion": future,
        "newest_ingestion": newest or "none",
        "exported_at": cursor.exported_at or "never",
    }
    if cursor.exported_at is None or now - datetime.fromisoformat(cursor.exported_at) > EXPORT_MAX_AGE:
        return Finding(False, f"the last export is older than {EXPORT_MAX_AGE}: {counts['exported_at']}", counts)
    return Finding(
        True,
        f"exported at {cursor.exported_at}, newest row of {counts['newest_ingestion']}, {future} dated later",
        counts,
    )


def check_duplicates(files: Sequence[Path]) -> Finding:
    """No interaction id stands for two different interactions. Exact repeats are counted; features keep one of each."""
    repeats, conflicts = (0, 0)
    if files:
        content = f"({c.USER_ID}, {c.ITEM_ID}, {c.INTERACTION_TYPE}, {c.VALUE}, {c.TIMESTAMP})"
        repeats, conflicts = _row(
            files[0],
            f"SELECT coalesce(sum(n - 1), 0)::BIGINT, count(*) FILTER (contents > 1) FROM ("  # noqa: S608
            f"SELECT count(*) AS n, count(DISTINCT {content}) AS contents FROM read_parquet(?) "
            f"GROUP BY {c.INTERACTION_ID} HAVING count(*) > 1)",
            [_names(files)],
        )
    counts: dict[str, int | str] = {"repeated_rows": repeats, "conflicting_ids": conflicts}
    if conflicts:
        return Finding(False, f"{conflicts} interaction ids stand for different interactions", counts)
    return Finding(True, f"{repeats} repeated rows, no conflicting ids", counts)


def _no_bad_rows(files: Sequence[Path], schema: pa.Schema, conditions: dict[str, str]) -> Finding:
    counts: dict[str, int | str] = dict.fromkeys(["rows", *conditions], 0)
    if files:
        filters = ", ".join(f"count(*) FILTER ({condition})" for condition in conditions.values())
        row = _row(files[0], f"SELECT count(*), {filters} FROM read_parquet(?)", [_names(files)])  # noqa: S608
        counts = dict(zip(counts, row, strict=True))
    bad = {name: counts[name] for name in conditions if counts[name]}
    if bad:
        return Finding(False, ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in bad.items()), counts)
    return Finding(True, f"{counts['rows']} rows with legal {', '.join(schema.names[:3])}", counts)


def _illegal_id(column: str) -> str:
    length = f"coalesce(length({column}) BETWEEN 1 AND {c.MAX_ID_LENGTH}, false)"
    return f"NOT {length} OR regexp_matches({column}, '\\p{{Cc}}')"


def _difference(found: pa.Schema, expected: pa.Schema) -> str:
    found_fields, expected_fields = ([f"{f.name}: {f.type}" for f in schema] for schema in (found, expected))
    missing = [field for field in expected_fields if field not in found_fields]
    surplus = [field for field in found_fields if field not in expected_fields]
    parts = [f"{word} {', '.join(fields)}" for word, fields in (("lacks", missing), ("has", surplus)) if fields]
    if not parts and found_fields != expected_fields:
        parts = ["columns in another order"]
    return "; ".join(parts)


def _names(files: Sequence[Path]) -> list[str]:
    return [str(file) for file in files]


def _row(beside: Path, query: str, parameters: list[object]) -> tuple[Any, ...]:
    """The one row of a query. beside: one of the queried files."""
    with query_database(beside.parent) as database:
        row = database.execute(query, parameters).fetchone()
    if row is None:
        raise LookupError(f"no row for: {query}")
    return row
