"""`make bench-scale`: feature snapshots of generated tenants, up to 100 million interactions.

Rows are written straight to a lake, in its own format: no database holds so many here. The step runs in a process of
its own, whose memory is read from /proc and which is killed above the limit. Prints JSON, a line for each size, and
writes the table of docs/scale.md. Everything lies in a folder that is deleted at the end.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
from rich.console import Console

from configs.files import scratch_folder
from configs.settings import PathSettings
from feature_store import statistics
from feature_store.lake import TenantLake
from feature_store.range_plan import RangeLimits
from feature_store.schemas import LAKE_INTERACTIONS, LAKE_ITEMS
from feature_store.snapshot_files import SnapshotManifest, snapshot_folder
from feature_store.snapshots import build_snapshot
from pipelines.resources import Installation
from tests.fixtures.platform import ROOT

TENANT = "bench"
PAGE = ROOT / "docs" / "scale.md"
CHUNK = 2_000_000
DAYS = 90
MAX_USERS, MAX_ITEMS = 2_000_000, 500_000
COPIES_IN = 100_000
"""One row in so many is a copy of an earlier interaction, for another user."""
CHECKED_UP_TO = 5_000_000
"""Up to this size the snapshot is also built in seven ranges, whose id must be the same."""
BYTES_NEEDED = 150
"""Free bytes of the disk for each interaction: lake, rows between the steps, snapshot."""

HEAD = (
    "| interactions | users | items | ranges | seconds | processor seconds | peak memory | lake | between the steps "
    "| snapshot |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)

console = Console(stderr=True)

_INTERACTIONS = """
SELECT md5(CASE WHEN hash(n, 6) % $copies = 0 THEN n - 1000 ELSE n END::VARCHAR)::UUID::VARCHAR AS interaction_id,
    'user-' || lpad((($users * pow(hash(n, 1) / 18446744073709551616, 2))::BIGINT * 7368787 % $users)::VARCHAR, 8, '0')
        AS user_id,
    'item-' || lpad((($items * pow(hash(n, 2) / 18446744073709551616, 3))::BIGINT * 7368787 % $items)::VARCHAR, 7, '0')
        AS item_id,
    CASE WHEN hash(n, 3) % 20 < 14 THEN 'view' WHEN hash(n, 3) % 20 < 18 THEN 'click'
        WHEN hash(n, 3) % 20 < 19 THEN 'like' ELSE 'purchase' END AS interaction_type,
    CASE WHEN hash(n, 4) % 10 = 0 THEN (hash(n, 5) % 101 / 100)::REAL END AS value,
    to_timestamp(1735689600 + n * $step - (hash(n, 7) % 60)::BIGINT) AS timestamp,
    to_timestamp(1735689600 + n * $step) AS ingested_at,
    NULL::VARCHAR AS recommendation_id
FROM range($first::BIGINT, $end::BIGINT) AS numbers (n)
"""
"""Users and items by power laws: a few have very many events. Everything follows from the row's number."""

_ITEMS = """
SELECT 'item-' || lpad(n::VARCHAR, 7, '0') AS item_id,
    '{"title":"Item ' || n || '","category":"c' || n % 50 || '","price":' || n % 997 || '}' AS metadata,
    n % 100 > 0 AS is_active, to_timestamp(1735689600) AS created_at
FROM range($items::BIGINT) AS numbers (n) ORDER BY item_id
"""


@dataclass(frozen=True)
class Measured:
    """What building the snapshot of one tenant took."""

    interactions: int
    users: int
    items: int
    ranges: int  # parts with events
    seconds: float
    processor_seconds: float
    peak_mb: int  # resident memory of the process
    lake_mb: int
    between_mb: int  # largest size of the work folder: rows by range, and what did not fit in memory
    snapshot_mb: int
    snapshot_id: str

    def row(self) -> str:
        """The row of the page's table."""
        sizes = " | ".join(f"{size:,} MB" for size in (self.peak_mb, self.lake_mb, self.between_mb, self.snapshot_mb))
        counts = f"{self.interactions:,} | {self.users:,} | {self.items:,} | {self.ranges}"
        return f"| {counts} | {self.seconds:,.0f} | {self.processor_seconds:,.0f} | {sizes} |"


def generate(root: Path, interactions: int) -> None:
    """Write the lake of a tenant with so many interactions, by days of arrival."""
    users, items = max(1_000, min(MAX_USERS, interactions // 50)), max(500, min(MAX_ITEMS, interactions // 200))
    lake = TenantLake(root / "lake", TENANT)
    step = DAYS * 86_400 / interactions
    with lake.exporting(), duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'; SET memory_limit = '1GB'")

        def batches() -> Iterator[pa.RecordBatch]:
            for first in range(0, interactions, CHUNK):
                parameters = {
                    "users": users,
                    "items": items,
                    "copies": COPIES_IN,
                    "step": step,
                    "first": first,
                    "end": min(first + CHUNK, interactions),
                }
                for batch in database.sql(_INTERACTIONS, params=parameters).to_arrow_reader(100_000):
                    yield from pa.Table.from_batches([batch]).cast(LAKE_INTERACTIONS).to_batches()

        lake.append_interactions(batches(), upper_xid=1)
        catalogue = database.sql(_ITEMS, params={"items": items}).to_arrow_table().cast(LAKE_ITEMS)
        lake.write_items(catalogue.to_batches(), 1)


def features_step(root: Path, range_events: int) -> None:
    """What the asset `feature_snapshot` does, without Dagster and the database. Runs in a process of its own."""
    installation = Installation()
    limits = RangeLimits(range_events, installation.features.task_memory_mb << 20)
    manifest = build_snapshot(root / "lake", root / "features", TENANT, limits, installation.compute().map)
    folder = snapshot_folder(root / "features", TENANT, manifest.snapshot_id)
    statistics.interactions_per_day(folder)
    statistics.item_popularity(folder)
    statistics.most_popular_items(folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {**asdict(manifest), "peak_kb": _peak_kb(os.getpid()), "processor": used.ru_utime + used.ru_stime}
    (root / "manifest.json").write_text(json.dumps(told), encoding="utf-8")


def measure(root: Path, interactions: int, range_events: int, limit_mb: int) -> Measured:
    """Run the step in another process. Raises RuntimeError where it fails or takes more memory than the limit."""
    command = [sys.executable, "-m", "tests.benchmarks.scale", "--step", str(root), "--range-events", str(range_events)]
    shutil.rmtree(root / "features", ignore_errors=True)
    began = time.perf_counter()
    peak = between = 0
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            while process.poll() is None:
                peak = max(peak, _peak_kb(process.pid))
                between = max(between, sum(map(_bytes, (root / "features").glob("tenant=*/.*"))))
                if peak > limit_mb * 1024:
                    raise RuntimeError(f"the step took more than {limit_mb:,} MB with {interactions:,} interactions")
                time.sleep(0.2)
        finally:
            process.kill()
    seconds = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"the step failed with {interactions:,} interactions: exit status {process.returncode}")
    told = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    manifest = SnapshotManifest.of(told)
    return Measured(
        interactions=interactions,
        users=manifest.n_users,
        items=manifest.n_items,
        ranges=len(manifest.parts),
        seconds=round(seconds, 1),
        processor_seconds=round(told["processor"], 1),
        peak_mb=told["peak_kb"] // 1024,
        lake_mb=_bytes(root / "lake") >> 20,
        between_mb=between >> 20,
        snapshot_mb=_bytes(root / "features") >> 20,
        snapshot_id=manifest.snapshot_id,
    )


def bench(root: Path, interactions: int, limit_mb: int, range_events: int) -> Measured:
    """Generate and measure a tenant of this size in an empty folder, which is deleted.

    Raises RuntimeError where the disk has too little room, the step fails, or seven ranges give another snapshot.
    """
    root.mkdir()
    try:
        needed, free = interactions * BYTES_NEEDED, shutil.disk_usage(root).free
        if free < needed:
            raise RuntimeError(
                f"{interactions:,} interactions need {needed >> 20:,} MB of disk; {free >> 20:,} are free"
            )
        began = time.perf_counter()
        generate(root, interactions)
        console.print(f"{interactions:,} interactions generated in {time.perf_counter() - began:.0f} s")
        measured = measure(root, interactions, range_events, limit_mb)
        if interactions <= CHECKED_UP_TO:
            again = measure(root, interactions, -(-interactions // 7), limit_mb)
            console.print(f"in {again.ranges} ranges: {again.processor_seconds} s of a processor, {again.peak_mb:,} MB")
            if again.snapshot_id != measured.snapshot_id:
                raise RuntimeError(f"seven ranges gave {again.snapshot_id}, one {measured.snapshot_id}")
        return measured
    finally:
        shutil.rmtree(root)


def write_page(measured: Measured) -> None:
    """Put the row into the page's table, in place of an earlier one of the same size."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(HEAD) + len(HEAD) + 1
    end = text.index("\n\n", start - 1)
    rows = {_size(line): line for line in text[start:end].splitlines() if line}
    rows[measured.interactions] = measured.row()
    table = "\n".join(rows[size] for size in sorted(rows))
    PAGE.write_text(text[:start] + table + text[end:], encoding="utf-8")


def _size(row: str) -> int:
    return int(re.sub(r"\D", "", row.split("|")[1]))


def _peak_kb(pid: int) -> int:
    """The largest resident memory that a process has had, in KB; 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) if found else 0


def _bytes(folder: Path) -> int:
    """The bytes of all files below a folder; files that vanish meanwhile do not count."""
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(here, name).lstat().st_size
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100000,1000000", help="numbers of interactions, between commas")
    parser.add_argument("--memory-mb", type=int, default=4096, help="above which the step is killed")
    parser.add_argument("--range-events", type=int, default=Installation().features.range_events)
    parser.add_argument("--step", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is not None:
        features_step(arguments.step, arguments.range_events)
        return
    sizes = [int(size) for size in arguments.sizes.split(",")]
    root = PathSettings().root
    root.mkdir(parents=True, exist_ok=True)
    with scratch_folder(root) as folder:  # what a killed benchmark left is deleted by the next
        for interactions in sizes:
            measured = bench(folder / f"{interactions}", interactions, arguments.memory_mb, arguments.range_events)
            print(json.dumps(asdict(measured)), flush=True)
            write_page(measured)


if __name__ == "__main__":
    main()
