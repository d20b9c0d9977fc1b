"""What the generation job does, without Dagster: recommend to the users of a tenant's waiting jobs, in batches.

Batches are ranked as tasks, here or on other machines (`tasks`). This process alone reads the database, and writes what
they ranked to it or to files (`targets`).
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pyarrow import feather

from configs.files import remove_left_scratch, scratch_folder
from feature_store import columns as c
from feature_store.generation_sinks import ClaimedJob, Generation, JobGoneError, generating
from feature_store.generation_sources import GenerationSource, generation_source, tenants_to_generate
from feature_store.interaction_types import SEEN_TYPES
from pipelines.defs.generation.targets import Target, target_of
from pipelines.defs.generation.tasks import UserBatch, load_ranked_release, rank_batch, write_changes
from pipelines.resources import Installation
from serving.contracts.releases import BrokenReleaseError
from serving.predictor import Predictor
from serving.release import list_releases, release_folder

MAX_SCORES = 16_000_000
"""Scores held in memory at a time, 64 MB of float32. An ensemble holds a few such matrices."""
MAX_BATCH = 500
"""Users whose recommendations are stored in one transaction. A crash repeats at most so many, or those of a file."""

LEAST_SERVED_SHARE = 0.5
"""Of the users of a turn, who must have got recommendations for the turn to end before its job does. The others are
scored again when the job goes on, so a job whose users get nothing would never end."""
ASK_SECONDS = 2.0
"""Between two questions, at the end of a turn, whether another tenant waits."""

ReportProgress = Callable[[int, int], None]
"""Called with the users done and the users to do."""


@dataclass(frozen=True)
class JobResult:
    """The outcome of one job."""

    job_id: str
    algorithm: str
    release: str = ""
    users: int = 0
    recommendations: int = 0
    problem: str = ""  # why it failed or was abandoned; empty where it completed
    goes_on: bool = False  # the tenant's turn is over, and the job goes on in its next one
    seconds: float = field(default=0.0, compare=False)  # that ranking and storing took

    @property
    def users_per_second(self) -> float:
        """How many users got their recommendations stored in a second."""
        return self.users / self.seconds if self.seconds else 0.0


def process_jobs(
    installation: Installation, tenant_id: str, report_progress: ReportProgress, max_batch: int = MAX_BATCH
) -> Iterator[JobResult]:
    """Process the tenant's jobs, oldest first, including those that arrive meanwhile, until its turn is over.

    Processes none while another process works on the tenant's jobs. An exception leaves the job unfinished, and the
    next call continues it with the users that are left. So does the end of the turn, which comes after
    `GENERATION_TURN_SECONDS` where a job of another tenant waits.
    """
    url = installation.database_url()
    turn = _TenantTurn(url, tenant_id, installation.pipeline.generation_turn_seconds)
    remove_left_scratch(installation.paths.generation)  # a killed process may have left events of users
    with generating(url, tenant_id) as generation:
        has_begun = False  # even a turn without time gets on
        while generation is not None and not (has_begun and turn.is_over()):
            job = generation.next_job()
            if job is None:
                return
            has_begun = True
            with generation_source(url, tenant_id) as source:
                job_run = _JobRun(installation, tenant_id, source, generation, job)
                try:
                    result = job_run.run(report_progress, max_batch, turn)
                except JobGoneError as error:
                    result = JobResult(job.id, job.algorithm, problem=str(error))
            yield result
            if result.goes_on:
                return


class _TenantTurn:
    """How long a tenant's jobs go on: for so many seconds, and then until a job of another tenant waits."""

    def __init__(self, url: str, tenant_id: str, seconds: float) -> None:
        self._url = url
        self._tenant_id = tenant_id
        self._asks_at = time.monotonic() + seconds

    def is_over(self) -> bool:
        if time.monotonic() < self._asks_at:
            return False
        self._asks_at = time.monotonic() + ASK_SECONDS
        return any(tenant != self._tenant_id for tenant in tenants_to_generate(self._url))


class _JobRun:
    """The processing of one job."""

    def __init__(
        self,
        installation: Installation,
        tenant_id: str,
        source: GenerationSource,
        generation: Generation,
        job: ClaimedJob,
    ) -> None:
        self._bounds = installation.history
        self._compute = installation.compute()
        self._home = installation.paths.bentoml
        self._scratch = installation.paths.generation
        self._tenant = tenant_id
        self._source = source
        self._generation = generation
        self._job = job
        self._target: Target = target_of(installation.generation, installation.paths, tenant_id, generation, job)

    def run(self, report_progress: ReportProgress, max_batch: int, turn: _TenantTurn) -> JobResult:
        job = self._job
        predictor = self._predictor()
        if predictor is None:
            return self._failed("the tenant has no released models yet")
        release = predictor.manifest.release
        if job.algorithm not in predictor.catalogue.models:
            return self._failed(f"the release {release} has no model of the family {job.algorithm}")
        users = self._target.without_done(self._source.audience(job.id))
        allowed = self._generation.users_allowed(job)
        if allowed is not None and len(users) > allowed:
            return self._failed(
                f"it has {len(users):,} users, and the budget of this cycle allows {allowed:,} more: raise the overage "
                "cap, choose a larger plan or wait for the next cycle, and ask again"
            )
        began = time.perf_counter()
        self._target.begin(release, len(users))
        size = max(1, min(max_batch, MAX_SCORES // max(1, len(predictor.catalogue.ids))))
        served = done = 0
        goes_on = False
        with scratch_folder(self._scratch) as scratch:
            batches: deque[tuple[UserBatch, int]] = deque()  # that are with the engine, in order, and their users
            tasks = self._tasks(predictor, users, size, scratch, batches)
            with closing(self._compute.map(rank_batch, tasks)) as ranked:
                for _ in ranked:
                    batch, n_users = batches.popleft()
                    rows = feather.read_table(batch.ranked_file)
                    batch.delete_files()
                    self._target.write(rows, n_users)
                    served += len(rows[c.USER_ID].unique())
                    done += n_users
                    report_progress(done, len(users))
                    if done < len(users) and served >= LEAST_SERVED_SHARE * done and turn.is_over():
                        goes_on = True
                        break
        self._target.flush()
        if not goes_on:
            self._target.complete()
        seconds = time.perf_counter() - began
        return JobResult(job.id, job.algorithm, release, done, self._target.written, goes_on=goes_on, seconds=seconds)

    def _tasks(
        self, predictor: Predictor, users: pa.Table, size: int, scratch: Path, batches: deque[tuple[UserBatch, int]]
    ) -> Iterator[UserBatch]:
        """The users in batches, each with the catalogue and the events of the moment in which it is asked for.

        batches: gets each of them with its number of users.
        """
        exclude_seen = self._source.exclude_seen()
        at_most = self._bounds.max_scanned if SEEN_TYPES[exclude_seen] else self._bounds.max_events
        version, n_changes = predictor.catalogue.version, 0
        for number, start in enumerate(range(0, len(users), size)):
            chosen = users.slice(start, size)
            newer, changes = self._source.catalogue_changes(version)
            if newer > version:
                n_changes += 1
                write_changes(scratch, n_changes, version, newer, changes)
                version = newer
            batch = UserBatch(
                release_folder(self._home, self._tenant, predictor.manifest.release),
                scratch,
                number,
                n_changes,
                self._job.algorithm,
                self._job.count,
                exclude_seen,
                self._bounds.max_events,
                self._bounds.max_seen,
            )
            feather.write_feather(chosen, batch.users_file)
            events = self._source.recent_events(chosen[c.USER_ID].to_pylist(), at_most)
            feather.write_feather(events, batch.events_file)
            batches.append((batch, len(chosen)))
            yield batch

    def _failed(self, problem: str) -> JobResult:
        self._generation.fail(self._job, problem)
        return JobResult(self._job.id, self._job.algorithm, problem=problem)

    def _predictor(self) -> Predictor | None:
        """The newest release that can be loaded, as the model server would choose it. None where there is no release.

        Raises BrokenReleaseError where no release can be loaded.
        """
        broken = None
        for release in list_releases(self._home).get(self._tenant, []):
            try:
                return load_ranked_release(release_folder(self._home, self._tenant, release), self._bounds.max_events)
            except BrokenReleaseError as error:
                broken = error
        if broken is not None:
            raise broken
        return None
