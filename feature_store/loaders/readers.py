"""Reads files into DuckDB: one table per file, with the line or row number of every record."""
# ruff: noqa: S608 -- column names are quoted, and a mapping is as trusted as the command line it comes from

import csv
import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from feature_store.loaders.problems import ImportRefusedError, Reject
from feature_store.metadata import metadata_problem

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
    """A file whose records are in the table `table`. `unread` are the lines that could not be read as records."""

    file: str
    table: str
    format: str
    columns: dict[str, str]  # name -> DuckDB type
    rows: int
    unread: list[Reject] = field(default_factory=list)

    @property
    def word(self) -> str:
        """What a record is called in messages."""
        return "row" if self.format == "parquet" else "line"


def stage(db: duckdb.DuckDBPyConnection, path: Path, table: str, delimiter: str = "") -> Staged:
    """Read the file into `table`. Raises ImportRefusedError where the file holds no records."""
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
    except duckdb.Error as error:
        raise ImportRefusedError(f"{path}: cannot be read as a table: {error}") from error
    if staged.rows == 0 and not staged.unread:
        raise ImportRefusedError(f"{path}: has no records; it needs at least one")
    return staged


def _stage_parquet(db: duckdb.DuckDBPyConnection, path: Path, table: str) -> Staged:
    try:
        described = db.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
        _refuse_place(path, [name for name, *_ in described])
        db.execute(
            f"CREATE TABLE {table} AS SELECT * EXCLUDE (file_row_number), file_row_number + 1 AS {PLACE} "
            "FROM read_parquet(?, file_row_number = true)",
            [str(path)],
        )
    except duckdb.Error as error:
        raise ImportRefusedError(f"{path}: is no readable Parquet file: {error}") from error
    return describe_table(db, str(path), table, "parquet")


def describe_table(db: duckdb.DuckDBPyConnection, file: str, table: str, kind: str) -> Staged:
    """The description of a table that exists already."""
    columns = {name: str(type_) for name, type_, *_ in db.execute(f"DESCRIBE {table}").fetchall() if name != PLACE}
    rows = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    return Staged(file, table, kind, columns, rows[0] if rows else 0)


def _stage_csv(db: duckdb.DuckDBPyConnection, path: Path, table: str, delimiter: str) -> Staged:
    # Python's CSV reader, because DuckDB's does not report the line of each record where fields span lines.
    unread: list[Reject] = []
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header = _header(path, reader)
        names = [*header, PLACE]
        schema = pa.schema([*((name, pa.string()) for name in header), (PLACE, pa.int64())])
        db.execute(f"CREATE TABLE {table} ({', '.join(f'{quoted(name)} VARCHAR' for name in header)}, {PLACE} BIGINT)")
        for rows in _chunks(_csv_rows(path, lines, reader, len(header), unread)):
            chunk = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), schema=schema)
            db.register("chunk", chunk)
            db.execute(f"INSERT INTO {table} SELECT * FROM chunk")
            db.unregister("chunk")
    staged = describe_table(db, str(path), table, "csv")
    staged.unread = unread
    return staged


class _Lines:
    """The lines of a file for a CSV reader, which can go back to the lines of a broken record."""

    def __init__(self, file: Iterator[str]) -> None:
        self._file = file
        self._again: deque[str] = deque()
        self.record: list[str] = []
        self.number = 0  # of the line that was read last

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file)
        self.record.append(line)
        self.number += 1
        return line

    def only_first(self) -> str:
        """The first line of the broken record. The others are read again, since a stray quote may have joined them."""
        first, *others = self.record
        self._again.extendleft(reversed(others))
        self.number -= len(others)
        return first


def _header(path: Path, reader: Any) -> list[str]:
    try:
        header = next(reader)
    except StopIteration as error:
        raise ImportRefusedError(f"{path}: is empty; its first line must name the columns") from error
    except csv.Error as error:
        raise ImportRefusedError(f"{path}: line 1: is no CSV: {error}; it must name the columns") from error
    if any(_unreadable(name) for name in header):
        raise ImportRefusedError(f"{path}: line 1: is not UTF-8 text; save the file as UTF-8")
    header = [name.strip() for name in header]
    if not header:
        raise ImportRefusedError(f"{path}: line 1: is blank; it must name the columns")
    if not all(header) or len(set(map(str.lower, header))) < len(header):
        raise ImportRefusedError(f"{path}: line 1: has an empty or repeated column name: {', '.join(header)}")
    _refuse_place(path, header)
    return header


def _refuse_place(path: Path, columns: list[str]) -> None:
    if PLACE in map(str.lower, columns):
        raise ImportRefusedError(f"{path}: has a column {PLACE}, a name that is kept for line numbers; rename it")


def _csv_rows(path: Path, lines: _Lines, reader: Any, width: int, unread: list[Reject]) -> Iterator[list[Any]]:
    while True:
        lines.record.clear()
        line = lines.number + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            broken = f"is no CSV: {error}; close the quote, or double the quotes inside of a field"
            unread.append(Reject(str(path), "line", line, "", broken, _shown([lines.only_first()])))
            continue
        if not row:
            continue
        text = "".join(row)
        reason = None
        if len(row) != width:
            reason = f"has {len(row)} fields where the header names {width}"
            if len(lines.record) > 1:
                reason += "; a quote in it opens a field of several lines"
                row = [lines.only_first()]
        elif not text.isascii() and _unreadable(text):
            reason = "is not UTF-8 text"
        elif "\0" in text:
            reason = "holds a NUL character"
        if reason:
            unread.append(Reject(str(path), "line", line, "", reason, _shown(row)))
        else:
            row.append(line)
            yield row


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
    if unread and not keys:
        raise ImportRefusedError(f"{path}: none of its {len(unread)} lines is a record; {unread[0]}")
    _refuse_place(path, list(keys))
    if len(keys) > MAX_COLUMNS:
        raise ImportRefusedError(f"{path}: has more than {MAX_COLUMNS} different keys; nest them under one")
    if len({key.lower() for key in keys}) < len(keys):
        raise ImportRefusedError(f"{path}: has keys that differ in case alone: {', '.join(sorted(keys))}")
    pointers = {key: "/" + key.replace("~", "~0").replace("/", "~1") for key in keys}
    columns = [f"document -> {literal(pointer)} AS {quoted(key)}" for key, pointer in pointers.items()]
    db.execute(f"CREATE TABLE {table} AS SELECT {', '.join([*columns, PLACE])} FROM {table}_documents")
    db.execute(f"DROP TABLE {table}_documents")
    staged = describe_table(db, str(path), table, "jsonl")
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
            reason = "is no JSON object; write one object a line"
            if isinstance(document, dict):
                reason = "has a key without a name" if "" in document else metadata_problem(document)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            reason = f"is no JSON: {error}"
        except RecursionError:
            reason = "is nested too deep"
        if reason:
            unread.append(Reject(str(path), "line", number, "", reason, text.decode("utf-8", "replace")[:1_000]))
            continue
        keys.update(dict.fromkeys(document))
        # Encoded again, so that numbers have their shortest form, which the API stores too.
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
    """The text as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
