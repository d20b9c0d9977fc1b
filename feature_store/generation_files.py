"""Recommendations of generation jobs as Parquet files, in place of rows of the database.

    <recommendations>/tenant=<t>/job=<id>/part-00000.parquet    GENERATED_FILES
    <recommendations>/tenant=<t>/job=<id>/manifest.json         once the job has completed

A part appears whole and holds all recommendations of its users; no user is in two. So a job that broke off goes on with
the users that no part holds. Erased users go from the parts as they go from the lake.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.storage import open_storage
from feature_store import columns as c
from feature_store.erasure import holds_erased, without_erased
from feature_store.lake import put_parquet, tenant_folder
from feature_store.schemas import GENERATED_FILES

MANIFEST_FILE = "manifest.json"

_PART = re.compile(r"job=(?P<job>[^/]+)/part-(?P<number>\d+)\.parquet")


@dataclass(frozen=True)
class StoredRecommendations:
    """What the files of a job hold."""

    users: pa.Array  # string [n], each once
    rows: int


class GeneratedFiles:
    """The files of one job. Its writer holds the job's lock in the database, so there is one (`generation_sinks`)."""

    def __init__(self, root: Path, tenant_id: str, job_id: str) -> None:
        self._storage = open_storage(tenant_folder(root, tenant_id))
        self.folder = f"job={job_id}"

    def parts(self) -> list[Path]:
        """Local paths where the parts can be read now."""
        return [self._storage.local(key) for key in self._keys()]

    def names(self) -> list[str]:
        """The names of the parts."""
        return [key.rpartition("/")[2] for key in self._keys()]

    def stored(self) -> StoredRecommendations:
        """Of whom the parts hold recommendations, and how many."""
        found, rows = [pa.array([], pa.string())], 0
        for part in self.parts():
            users = pq.read_table(part, columns=[c.USER_ID], partitioning=None)[c.USER_ID]
            found.append(users.unique())
            rows += len(users)
        return StoredRecommendations(pa.concat_arrays(found).unique(), rows)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock that erasures take too: a user who is in what is put now is in what they look at."""
        with self._storage.lock():
            yield

    def put(self, recommendations: pa.Table) -> None:
        """Add a part (GENERATED_FILES). Call it within `writing`."""
        self._storage.remove_unfinished(self.folder)
        numbers = [int(match["number"]) for key in self._keys() if (match := _PART.fullmatch(key))]
        key = f"{self.folder}/part-{max(numbers, default=-1) + 1:05}.parquet"
        put_parquet(self._storage, key, recommendations.to_batches(), GENERATED_FILES)

    def complete(self, facts: Mapping[str, Any]) -> None:
        """Say that all parts are there, and what they hold."""
        self._storage.put_text(f"{self.folder}/{MANIFEST_FILE}", json.dumps(facts, indent=1))

    def _keys(self) -> list[str]:
        return [key for key in self._storage.files(self.folder) if _PART.fullmatch(key)]


def erase_generated(root: Path, tenant_id: str, tombstones: pa.Table) -> int:
    """Rewrite the tenant's parts without the rows of erased users (TOMBSTONES). Returns the number of rewritten files.

    A user who was created after the erasure is another one with the same id.
    """
    if not tombstones.num_rows:
        return 0
    storage, rewritten = open_storage(tenant_folder(root, tenant_id)), 0
    if not storage.files():
        return 0  # no lock, which would make the folder of a tenant that never had files
    with storage.lock():
        storage.remove_unfinished()
        for key in filter(_PART.fullmatch, storage.files()):
            file = storage.local(key)
            if holds_erased(file, tombstones, c.CREATED_AT):
                with pq.ParquetFile(file) as parquet:
                    kept = without_erased(parquet.iter_batches(), tombstones, c.CREATED_AT)
                    put_parquet(storage, key, kept, GENERATED_FILES)
                rewritten += 1
    return rewritten


def jobs_with_files(root: Path) -> set[tuple[str, str]]:
    """Tenant and job of all folders of files."""
    storage = open_storage(root)
    return {
        (tenant.removeprefix("tenant="), job.removeprefix("job="))
        for tenant in storage.folders()
        for job in storage.folders(tenant)
    }


def delete_generated(root: Path, tenant_id: str, job_id: str) -> None:
    """Delete all files of a job."""
    open_storage(tenant_folder(root, tenant_id)).delete(f"job={job_id}")
