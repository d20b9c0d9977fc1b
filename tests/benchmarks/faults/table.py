"""The table of faults."""

from collections.abc import Sequence

from rich.table import Table

from tests.benchmarks.faults.load import FaultRow

COLUMNS = {
    "fault": "fault",
    "answers": "answers",
    "acknowledged": "acknowledged",
    "lost": "lost",
    "wrong": "wrong",
    "server_errors": "5xx, not 503",
    "unavailable": "503",
    "cut_off": "cut off",
    "degraded": "degraded",
    "recovery_seconds": "recovery, s",
}


def table_of(rows: Sequence[FaultRow]) -> Table:
    """A line for each fault; the last column says which promises were broken."""
    table = Table(*COLUMNS.values(), "broken")
    for row in rows:
        values = [getattr(row, name) for name in COLUMNS]
        broken = ", ".join(promise for promise, kept in row.promises.items() if not kept)
        table.add_row(*("-" if value is None else str(value) for value in values), broken)
    return table
