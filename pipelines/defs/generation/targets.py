"""Where a generation job's recommendations go: rows of the database, or Parquet files. The run alone writes them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from configs.generation import GenerationSettings
from configs.settings import PathSettings
from feature_store import columns as c
from feature_store.generation_files import GeneratedFiles
from feature_store.generation_sinks import ClaimedJob, Generation
from feature_store.schemas import GENERATED_FILES

PART_ROWS = 250_000
"""Recommendations of a Parquet file, about. So many are held in memory, and repeated after a crash."""


class Target(Protocol):
    """Stores the recommendations of one job. Every method raises JobGoneError where the job is gone."""

    written: int
    """Recommendations that this run has stored."""

    def without_done(self, users: pa.Table) -> pa.Table:
        """The users (AUDIENCE) that the target has no recommendations for."""
        ...

    def begin(self, release: str, users_left: int) -> None:
        """Store the release of this run and how many users are left."""
        ...

    def write(self, recommendations: pa.Table, users: int) -> None:
        """Take the recommendations (RECOMMENDATIONS) of so many users. They are stored now, or with later ones."""
        ...

    def flush(self) -> None:
        """Store what has been taken and is not stored yet."""
        ...

    def complete(self) -> None:
        """Say that all of the job is stored."""
        ...


class DatabaseTarget:
    """Rows of the table `recommendations`, by COPY."""

    def __init__(self, generation: Generation, job: ClaimedJob) -> None:
        self._generation, self._job = generation, job
        self._release = ""
        self.written = 0

    def without_done(self, users: pa.Table) -> pa.Table:
        return users  # the query of the audience leaves them out

    def begin(self, release: str, users_left: int) -> None:
        self._release = release
        self._generation.begin(self._job, release, users_left)

    def write(self, recommendations: pa.Table, users: int) -> None:
        self.written += self._generation.write(self._job, self._release, recommendations, users)

    def flush(self) -> None: ...

    def complete(self) -> None:
        self._generation.complete(self._job)


class ParquetTarget:
    """Parts of about PART_ROWS rows in the folder of the job."""

    def __init__(self, generation: Generation, job: ClaimedJob, root: Path, tenant_id: str) -> None:
        self._generation, self._job = generation, job
        self._files = GeneratedFiles(root, tenant_id, job.id)
        self._release = ""
        self._taken: list[pa.Table] = []
        self._taken_users = 0
        self._done = self._files.stored()  # by earlier runs
        self.written = 0

    def without_done(self, users: pa.Table) -> pa.Table:
        return users.filter(pc.invert(pc.is_in(users[c.USER_ID], value_set=self._done.users)))

    def begin(self, release: str, users_left: int) -> None:
        self._release = release
        self._generation.begin(self._job, release, users_left)
        self._generation.count_files(self._job, self._done.rows, len(self._done.users))

    def write(self, recommendations: pa.Table, users: int) -> None:
        self._taken.append(recommendations)
        self._taken_users += users
        if sum(each.num_rows for each in self._taken) >= PART_ROWS:
            self.flush()

    def flush(self) -> None:
        if not self._taken:
            return
        with self._files.writing():
            taken = pa.concat_tables(self._taken)
            self.written += self._generation.write_file(self._job, taken, self._taken_users, self._put)
        self._taken, self._taken_users = [], 0

    def complete(self) -> None:
        facts = {
            "job": self._job.id,
            "algorithm": self._job.algorithm,
            "count": self._job.count,
            "release": self._release,  # of the last run; each row names its own
            "recommendations": self._done.rows + self.written,
            "parts": self._files.names(),
            "completed_at": datetime.now(UTC).isoformat(),
        }
        self._files.complete(facts)
        self._generation.complete(self._job)

    def _put(self, recommendations: pa.Table) -> None:
        if not recommendations.num_rows:
            return
        repeated = [pa.repeat(text, recommendations.num_rows) for text in (self._job.algorithm, self._release)]
        columns = [*recommendations.columns, *repeated]
        self._files.put(pa.Table.from_arrays(columns, names=GENERATED_FILES.names))


def target_of(
    settings: GenerationSettings, paths: PathSettings, tenant_id: str, generation: Generation, job: ClaimedJob
) -> Target:
    """The target that the settings name."""
    if settings.target == "parquet":
        return ParquetTarget(generation, job, paths.recommendations, tenant_id)
    return DatabaseTarget(generation, job)
