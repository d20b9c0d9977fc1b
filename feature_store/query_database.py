"""DuckDB databases for queries over files that may be larger than memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from configs.files import scratch_folder


@contextmanager
def query_database(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in memory, with times in UTC.

    What does not fit in memory goes to a scratch folder in `folder`, beside the queried files. DuckDB's default is the
    folder that the process was started in, where rows of a killed process would stay for ever.
    """
    with scratch_folder(folder) as scratch, duckdb.connect(config={"temp_directory": str(scratch)}) as database:
        database.execute("SET TimeZone = 'UTC'")
        yield database
