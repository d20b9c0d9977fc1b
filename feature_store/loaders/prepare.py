"""Turns staged files into rows for the database, in DuckDB: converts types, checks, and rejects repetitions."""
# ruff: noqa: S608 -- column names are quoted, and a mapping is as trusted as the command line it comes from

import duckdb
import msgspec
import pyarrow as pa

from feature_store.loaders import columns as typed
from feature_store.loaders.columns import Column, Raw
from feature_store.loaders.mapping import ColumnSource, InteractionMapping, ItemMapping, TimestampSource
from feature_store.loaders.problems import ImportRefusedError
from feature_store.loaders.readers import PLACE, Staged, literal
from feature_store.loaders.resolve import Resolver
from feature_store.metadata import metadata_problem, size_problem

ITEMS = "ready_items"
"""(id, metadata JSON text, is_active or NULL), one row per item."""
INTERACTIONS = "ready_interactions"
"""(id UUID, user_id, item_id, interaction_type, value or NULL, occurred_at), one row per interaction."""
KNOWN_ITEMS = "known_items"
"""(id) of the items that the catalogue has already."""


def prepare_items(db: duckdb.DuckDBPyConnection, staged: Staged, mapping: ItemMapping) -> None:
    """Create ITEMS from the file. Rejected rows go to the table `rejects` with the reason."""
    resolver = Resolver(db, staged)
    id_ = typed.id_column(staged, resolver.required(mapping.id, "items.id", "the item's id"), "an item's id")
    active = resolver.optional(mapping.active, "items.active", "whether the item is active")
    flag = typed.flag_column(active) if active else Column("", "CAST(NULL AS BOOLEAN)")
    fields = _metadata_fields(staged, mapping, resolver)
    values = {"id": id_.value, "is_active": flag.value, "metadata": _object(fields)}
    _check(db, staged, "checked_items", values, [id_, flag, *fields.values()])
    _check_metadata(db)
    _refuse_repeated(db, staged, "checked_items", "has the same item id as", id_.name)
    _report(db, staged, "checked_items")
    db.execute(f"CREATE TABLE {ITEMS} AS SELECT id, metadata, is_active FROM checked_items WHERE problem IS NULL")


def prepare_interactions(
    db: duckdb.DuckDBPyConnection, staged: Staged, mapping: InteractionMapping, tenant_id: str
) -> None:
    """Create INTERACTIONS from the file, for items of ITEMS or KNOWN_ITEMS. Rejected rows go to the table `rejects`.

    The id of an interaction is a hash of its content, so that loading it again changes nothing.
    """
    resolver = Resolver(db, staged)
    user = typed.id_column(staged, resolver.required(mapping.user, "interactions.user", "the user's id"), "a user's id")
    item = typed.id_column(
        staged, resolver.required(mapping.item, "interactions.item", "the item's id"), "an item's id"
    )
    type_ = typed.type_column(
        resolver.required(mapping.type, "interactions.type", "the interaction's type"),
        mapping.type.map if mapping.type else {},
    )
    time = resolver.required(mapping.timestamp, "interactions.timestamp", "the time of the interaction")
    zone = mapping.timestamp or TimestampSource(column=time.name)
    occurred = typed.timestamp_column(staged, time, zone, _mixed(db, staged, time))
    weight = resolver.optional(mapping.value, "interactions.value", "the weight of the interaction")
    value = typed.value_column(staged, weight) if weight else Column("", "CAST(NULL AS FLOAT)")
    values = {
        "user_id": user.value,
        "item_id": item.value,
        "interaction_type": type_.value,
        "value": value.value,
        "occurred_at": occurred.value,
    }
    _check(db, staged, "checked_interactions", values, [user, item, type_, value, occurred])
    said = ["user_id", "item_id", "interaction_type", "coalesce(CAST(value AS VARCHAR), '')", "epoch_us(occurred_at)"]
    db.execute("ALTER TABLE checked_interactions ADD COLUMN id UUID")
    db.execute(
        "UPDATE checked_interactions SET id = "
        f"CAST(md5(concat_ws(chr(31), {literal(tenant_id)}, {', '.join(said)})) AS UUID) WHERE problem IS NULL"
    )
    _refuse_unknown_items(db, item.name)
    _refuse_repeated(db, staged, "checked_interactions", "says the same as", "")
    _report(db, staged, "checked_interactions")
    db.execute(
        f"CREATE TABLE {INTERACTIONS} AS SELECT id, {', '.join(values)} FROM checked_interactions "
        "WHERE problem IS NULL ORDER BY user_id, occurred_at, item_id"
    )


def _check(
    db: duckdb.DuckDBPyConnection, staged: Staged, table: str, values: dict[str, str], columns: list[Column]
) -> None:
    """Create `table` from the values. Its column `problem` is the first reason to reject the row, or NULL."""
    selected = ", ".join(f"{value} AS {name}" for name, value in values.items())
    problems = ", ".join([*(column.problem() for column in columns), "NULL"])
    try:
        db.execute(
            f"CREATE TABLE {table} AS SELECT {PLACE}, {selected}, "
            f'CAST(coalesce({problems}) AS STRUCT("column" VARCHAR, reason VARCHAR)) AS problem FROM {staged.table}'
        )
    except duckdb.Error as error:
        raise ImportRefusedError(f"{staged.file}: the mapping's expressions fail on its rows: {error}") from error


def _refuse_unknown_items(db: duckdb.DuckDBPyConnection, column: str) -> None:
    db.execute(
        "UPDATE checked_interactions SET problem = {'column': ?, 'reason': ?} WHERE problem IS NULL "
        f"AND item_id NOT IN (SELECT id FROM {ITEMS} UNION ALL SELECT id FROM {KNOWN_ITEMS})",
        [column, "is the id of no item; add the item to the items file, or import it first"],
    )


def _refuse_repeated(db: duckdb.DuckDBPyConnection, staged: Staged, table: str, what: str, column: str) -> None:
    """Reject rows that repeat the id of an earlier row."""
    db.execute(
        f"UPDATE {table} AS later SET problem = "
        f"{{'column': ?, 'reason': ? || ' {staged.word} ' || first_place || ', which was taken; remove one of them'}} "
        f"FROM (SELECT id AS first_id, min({PLACE}) AS first_place FROM {table} WHERE problem IS NULL "
        f"GROUP BY id HAVING count(*) > 1) WHERE problem IS NULL AND id = first_id AND {PLACE} > first_place",
        [column, what],
    )


def _report(db: duckdb.DuckDBPyConnection, staged: Staged, table: str) -> None:
    db.execute(
        f"INSERT INTO rejects SELECT ?, ?, {PLACE}, problem['column'], problem['reason'], left(to_json(raw), 4000) "
        f"FROM {table} JOIN {staged.table} AS raw USING ({PLACE}) WHERE problem IS NOT NULL",
        [staged.file, staged.word],
    )


def _metadata_fields(staged: Staged, mapping: ItemMapping, resolver: Resolver) -> dict[str, Column]:
    """The columns by metadata field. The single key "" means a column that holds the whole object."""
    wanted = mapping.metadata
    if wanted is None:
        wanted = "metadata" if "metadata" in staged.columns else "*"
    if isinstance(wanted, str) and wanted != "*":
        whole = resolver.required(ColumnSource(column=wanted), "items.metadata", "the item's metadata")
        return {"": typed.object_column(staged, whole)}
    if isinstance(wanted, str):
        wanted = {name: ColumnSource(column=name) for name in staged.columns if name not in resolver.used}
    fields: dict[str, Column] = {}
    for name, source in wanted.items():
        raw = resolver.required(source, f"items.metadata.{name}", f"the metadata field {name!r}")
        untyped = source.type is None and staged.format == "csv" and raw.type == "VARCHAR" and source.sql is None
        fields[name] = typed.metadata_column(raw, source, resolver.looks_like(raw) if untyped else source.type)
    return fields


def _object(fields: dict[str, Column]) -> str:
    """SQL of the JSON text of an object. Fields without a value are left out."""
    if "" in fields:
        return fields[""].value
    parts = [f"{literal(_key(name))} || ({field.value})" for name, field in fields.items()]
    return f"'{{' || concat_ws(',', {', '.join(parts)}) || '}}'" if parts else "'{}'"


def _key(name: str) -> str:
    return msgspec.json.encode(name).decode() + ":"


def _check_metadata(db: duckdb.DuckDBPyConnection) -> None:
    """Check every metadata object by the API's rules, and write it in the form that the API stores."""
    result = db.execute(f"SELECT {PLACE}, metadata FROM checked_items WHERE problem IS NULL")
    places: list[int] = []
    objects: list[str] = []
    reasons: list[str | None] = []
    while rows := result.fetchmany(10_000):
        for place, text in rows:
            object_, reason = _metadata_of(text)
            places.append(place)
            objects.append(object_)
            reasons.append(reason)
    db.register("judged", pa.table({"at": places, "object": objects, "reason": pa.array(reasons, pa.string())}))
    db.execute(
        "UPDATE checked_items SET metadata = judged.object, problem = CASE WHEN judged.reason IS NOT NULL "
        f"THEN {{'column': 'metadata', 'reason': judged.reason}} END FROM judged WHERE {PLACE} = judged.at"
    )
    db.unregister("judged")


def _metadata_of(text: str) -> tuple[str, str | None]:
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return "{}", f"is no JSON that can be stored: {error}"
    if not isinstance(document, dict):
        return "{}", "is no JSON object"
    if (problem := metadata_problem(document) or size_problem(document)) is not None:
        return "{}", problem
    return msgspec.json.encode(document).decode(), None


def _mixed(db: duckdb.DuckDBPyConnection, staged: Staged, time: Raw) -> bool:
    if time.type not in {"VARCHAR", "JSON"}:
        return False
    row = db.execute(f"SELECT {typed.offsets_in(time)} FROM {staged.table}").fetchone()
    return bool(row and row[0] and row[1])
