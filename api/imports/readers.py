"""Files into DuckDB: one table per file, with the line or row number of every record."""
# ruff: noqa: S608 -- column names are quoted, and a mapping is as trusted as the command line it comes from

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from api.imports.problems import ImportRefusedError, Reject
from api.items.metadata import metadata_problem

PLACE = "__place"
"""Column with the line (text) or row (Parquet) number, from 1."""
CHUNK = 50_000
MAX_COLUMNS = 1_000
FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
csv.field_size_limit(16 * 1024 * 1024)


@dataclass
class Staged:
    """A file's records in the table `table`; `unread` are those that no record could be made of."""

    file: str
    table: str
    format: str
    columns: dict[str, str]  # name -> DuckDB type
    rows: int
    unread: list[Reject] = field(default_factory=list)

    @property
    def word(self) -> str:
        return "row" if self.format == "parquet" else "line"


def stage(db: duckdb.DuckDBPyConnection, path: Path, table: str, delimiter: str = "") -> Staged:
    """Read the file into `table`. Raises ImportRefusedError where it holds no table of records at all."""
    if path.suffix.lower() not in FORMATS:
        raise ImportRefusedError(f"{path}: is of no known kind; name it {', '.join(FORMATS)}")
    try:
        if path.stat().st_size == 0:
            raise ImportRefusedError(f"{path}: is empty; it needs at least one record")
        match FORMATS[path.suffix.lower()]:
            case "csv":
                staged = _stage_csv(db, path, table, delimiter or ("\t" if path.suffix.lower() == ".tsv" else ","))
            case "jsonl":
                staged = _stage_jsonl(db, path, table)
            case _:
                staged = _stage_parquet(db, path, table)
    except OSError as error:
        raise ImportRefusedError(f"{path}: cannot be read: {error.strerror or error}") from error
    if staged.rows == 0 and not staged.unread:
        raise ImportRefusedError(f"{path}: has no records; it needs at least one")
    return staged


def _stage_parquet(db: duckdb.DuckDBPyConnection, path: Path, table: str) -> Staged:
    try:
        db.execute(
            f"CREATE TABLE {table} AS SELECT * EXCLUDE (file_row_number), file_row_number + 1 AS {PLACE} "
            "FROM read_parquet(?, file_row_number = true)",
            [str(path)],
        )
    except duckdb.Error as error:
        raise ImportRefusedError(f"{path}: is no readable Parquet file: {error}") from error
    return describe(db, str(path), table, "parquet")


def describe(db: duckdb.DuckDBPyConnection, file: str, table: str, kind: str) -> Staged:
    """What is in a table that is already there."""
    columns = {name: str(type_) for name, type_, *_ in db.execute(f"DESCRIBE {table}").fetchall() if name != PLACE}
    rows = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    return Staged(file, table, kind, columns, rows[0] if rows else 0)


def _stage_csv(db: duckdb.DuckDBPyConnection, path: Path, table: str, delimiter: str) -> Staged:
    # Python's reader, because it alone knows the line of every record where fields span lines and rows are broken.
    unread: list[Reject] = []
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = _header(path, reader)
        names = [*header, PLACE]
        schema = pa.schema([*((name, pa.string()) for name in header), (PLACE, pa.int64())])
        db.execute(f"CREATE TABLE {table} ({', '.join(f'{quoted(name)} VARCHAR' for name in header)}, {PLACE} BIGINT)")
        for rows in _chunks(_csv_rows(path, reader, len(header), unread)):
            chunk = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), schema=schema)
            db.register("chunk", chunk)
            db.execute(f"INSERT INTO {table} SELECT * FROM chunk")
            db.unregister("chunk")
    staged = describe(db, str(path), table, "csv")
    staged.unread = unread
    return staged


def _header(path: Path, reader: Any) -> list[str]:
    try:
        header = next(reader)
    except StopIteration as error:
        raise ImportRefusedError(f"{path}: is empty; its first line must name the columns") from error
    except csv.Error as error:
        raise ImportRefusedError(f"{path}: line 1: is no CSV: {error}") from error
    if any(_unreadable(name) for name in header):
        raise ImportRefusedError(f"{path}: line 1: is not UTF-8 text; save the file as UTF-8")
    header = [name.strip() for name in header]
    if not all(header) or len(set(map(str.lower, header))) < len(header):
        raise ImportRefusedError(f"{path}: line 1: has an empty or repeated column name: {', '.join(header)}")
    return header


def _csv_rows(path: Path, reader: Any, width: int, unread: list[Reject]) -> Iterator[list[Any]]:
    line = reader.line_num + 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            unread.append(Reject(str(path), "line", line, "", f"is no CSV: {error}"))
            line = reader.line_num + 1
            continue
        if row:
            text = "".join(row)
            reason = None
            if len(row) != width:
                reason = f"has {len(row)} fields where the header names {width}"
            elif not text.isascii() and _unreadable(text):
                reason = "is not UTF-8 text"
            elif "\0" in text:
                reason = "holds a NUL character"
            if reason:
                unread.append(Reject(str(path), "line", line, "", reason, _shown(row)))
            else:
                row.append(line)
                yield row
        line = reader.line_num + 1


def _stage_jsonl(db: duckdb.DuckDBPyConnection, path: Path, table: str) -> Staged:
    unread: list[Reject] = []
    keys: dict[str, None] = {}
    db.execute(f"CREATE TABLE {table}_documents ({PLACE} BIGINT, document JSON)")
    with path.open("rb") as file:
        for rows in _chunks(_json_rows(path, file, keys, unread)):
            places, documents = zip(*rows, strict=True)
            db.register("chunk", pa.table({PLACE: pa.array(places, pa.int64()), "document": pa.array(documents)}))
            db.execute(f"INSERT INTO {table}_documents SELECT * FROM chunk")
            db.unregister("chunk")
    if len(keys) > MAX_COLUMNS:
        raise ImportRefusedError(f"{path}: has more than {MAX_COLUMNS} different keys; nest them under one")
    if len({key.lower() for key in keys}) < len(keys):
        raise ImportRefusedError(f"{path}: has keys that differ in case alone: {', '.join(sorted(keys))}")
    pointers = {key: "/" + key.replace("~", "~0").replace("/", "~1") for key in keys}
    columns = [f"document -> {literal(pointer)} AS {quoted(key)}" for key, pointer in pointers.items()]
    db.execute(f"CREATE TABLE {table} AS SELECT {', '.join([*columns, PLACE])} FROM {table}_documents")
    db.execute(f"DROP TABLE {table}_documents")
    staged = describe(db, str(path), table, "jsonl")
    staged.unread = unread
    return staged


def _json_rows(
    path: Path, file: io.BufferedReader, keys: dict[str, None], unread: list[Reject]
) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, start=1):
        text = line.strip() if number > 1 else line.removeprefix(b"\xef\xbb\xbf").strip()
        if not text:
            continue
        reason = None
        try:
            document = msgspec.json.decode(text)
            reason = metadata_problem(document) if isinstance(document, dict) else "is no JSON object"
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            reason = f"is no JSON: {error}"
        except RecursionError:
            reason = "is nested too deep"
        if reason:
            unread.append(Reject(str(path), "line", number, "", reason, text.decode("utf-8", "replace")[:1_000]))
            continue
        keys.update(dict.fromkeys(document))
        # Encoded again: numbers in their shortest form, as the API would have stored them.
        yield number, msgspec.json.encode(document).decode()


def _chunks(rows: Iterator[Any]) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _unreadable(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _shown(row: list[str]) -> str:
    return msgspec.json.encode([cell.encode("utf-8", "replace").decode() for cell in row]).decode()[:1_000]


def quoted(name: str) -> str:
    """An identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
