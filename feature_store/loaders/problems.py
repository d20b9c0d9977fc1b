"""The failures of an import: it is refused as a whole, or rejects single rows."""

from collections.abc import Iterable
from dataclasses import dataclass

import duckdb
import msgspec

from configs.files import PRIVATE
from configs.storage import Storage

MAX_PRINTED = 20
"""The number of rejected rows that are printed. The rejects file has all of them."""
CHUNK = 10_000


class ImportRefusedError(Exception):
    """Nothing was loaded. The message names the file, what is wrong in it and what to do."""


@dataclass(frozen=True)
class Reject:
    """One row that is not loaded."""

    file: str
    word: str  # "line" of text, "row" of Parquet
    place: int
    column: str
    reason: str
    row: str = ""  # as JSON, as far as it could be read

    def __str__(self) -> str:
        return f"{self.file}: {self.word} {self.place}{', column ' + self.column if self.column else ''}: {self.reason}"


class Rejects:
    """The rejected rows of one import. They are stored in DuckDB, so that they need not fit in memory."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self._db = db
        db.execute(
            "CREATE TABLE rejects "
            '(file VARCHAR, word VARCHAR, place BIGINT, "column" VARCHAR, reason VARCHAR, row VARCHAR)'
        )

    def add(self, rejects: Iterable[Reject]) -> None:
        """Store more rejected rows."""
        rows = [[r.file, r.word, r.place, r.column, r.reason, r.row] for r in rejects]
        if rows:
            self._db.executemany("INSERT INTO rejects VALUES (?, ?, ?, ?, ?, ?)", rows)

    def count(self, file: str | None = None) -> int:
        """The number of rejected rows of a file; None: of all files."""
        row = self._db.execute("SELECT count(*) FROM rejects WHERE ? IS NULL OR file = ?", [file, file]).fetchone()
        return int(row[0]) if row else 0

    def first(self, file: str | None = None, limit: int = MAX_PRINTED) -> list[Reject]:
        """The first rejected rows of a file by place; None: of all files."""
        rows = self._db.execute(
            "SELECT * FROM rejects WHERE ? IS NULL OR file = ? ORDER BY file, place LIMIT ?", [file, file, limit]
        ).fetchall()
        return [Reject(*row) for row in rows]

    def write(self, storage: Storage, key: str) -> None:
        """Put one JSON object a line. Only the owner can read the file, since the rows may name people."""
        result = self._db.execute("SELECT * FROM rejects ORDER BY file, place")
        names = [name for name, *_ in result.description]
        # With the lock, an erasure can tell what a killed import left from what is being written.
        with storage.lock(), storage.put(key, PRIVATE) as path, path.open("wb") as file:
            while rows := result.fetchmany(CHUNK):
                file.writelines(msgspec.json.encode(dict(zip(names, row, strict=True))) + b"\n" for row in rows)
