"""DuckDB databases for queries over files that may be larger than memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from configs.files import scratch_folder

SPILL_FACTOR = 16
"""A bounded database may write this many times its memory to its scratch folder, so that it does not fill the disk."""


@contextmanager
def query_database(folder: Path, memory_bytes: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in memory, with times in UTC.

    What does not fit in memory goes to a scratch folder in `folder`, beside the queried files. DuckDB's default is the
    folder that the process was started in, where rows of a killed process would stay for ever.

    memory_bytes: what the database may use; None: DuckDB's default, 80 % of the machine's. In a bounded database only
    ORDER BY gives rows an order.
    """
    with scratch_folder(folder) as scratch, duckdb.connect(config={"temp_directory": str(scratch)}) as database:
        database.execute("SET TimeZone = 'UTC'")
        if memory_bytes is not None:
            database.execute(f"SET memory_limit = '{memory_bytes}B'")
            database.execute(f"SET max_temp_directory_size = '{SPILL_FACTOR * memory_bytes}B'")
            database.execute("SET preserve_insertion_order = false")
        yield database
