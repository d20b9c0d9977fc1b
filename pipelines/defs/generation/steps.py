"""What the generation job does, without Dagster: recommend to the users of a tenant's waiting jobs, in batches."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from feature_store import columns as c
from feature_store.generation_sinks import ClaimedJob, Generation, JobGoneError, generating
from feature_store.generation_sources import GenerationSource, generation_source, tenants_to_generate
from feature_store.interaction_types import SEEN_TYPES
from feature_store.schemas import RECOMMENDATIONS
from pipelines.resources import Installation
from serving.bulk import recommend_users
from serving.contracts.messages import CatalogueDelta, ItemChange
from serving.contracts.releases import BrokenReleaseError
from serving.overlay import Catalogue
from serving.predictor import Predictor
from serving.queries import RankedLists
from serving.release import list_releases, release_folder
from training.models.lists import NO_ITEM

MAX_SCORES = 16_000_000
"""Scores held in memory at a time, 64 MB of float32. An ensemble holds a few such matrices."""
MAX_BATCH = 500
"""Users whose recommendations are stored in one transaction. A crash repeats at most so many users."""

LEAST_SHARE = 0.5
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
        self._home = installation.paths.bentoml
        self._tenant = tenant_id
        self._source = source
        self._generation = generation
        self._job = job

    def run(self, report_progress: ReportProgress, max_batch: int, turn: _TenantTurn) -> JobResult:
        job = self._job
        predictor = self._predictor()
        if predictor is None:
            return self._failed("the tenant has no released models yet")
        release = predictor.manifest.release
        if job.algorithm not in predictor.catalogue.models:
            return self._failed(f"the release {release} has no model of the family {job.algorithm}")
        users = self._source.audience(job.id)
        allowed = self._generation.users_allowed(job)
        if allowed is not None and len(users) > allowed:
            return self._failed(
                f"it has {len(users):,} users, and the budget of this cycle allows {allowed:,} more: raise the overage "
                "cap, choose a larger plan or wait for the next cycle, and ask again"
            )
        self._generation.begin(job, release, len(users))
        exclude_seen = self._source.exclude_seen()
        catalogue, written, served = predictor.catalogue, 0, 0
        size = max(1, min(max_batch, MAX_SCORES // max(1, len(catalogue.ids))))
        for start in range(0, len(users), size):
            batch = users.slice(start, size)
            catalogue = self._with_changes(catalogue)
            at_most = self._bounds.max_scanned if SEEN_TYPES[exclude_seen] else self._bounds.max_events
            events = self._source.recent_events(batch[c.USER_ID].to_pylist(), at_most)
            lists = recommend_users(
                predictor, catalogue, job.algorithm, events, len(batch), job.count, exclude_seen, self._bounds
            )
            written += self._generation.write(job, release, records(batch, catalogue, lists), len(batch))
            served += int((lists.items != NO_ITEM).any(axis=1).sum())
            done = start + len(batch)
            report_progress(done, len(users))
            if done < len(users) and served >= LEAST_SHARE * done and turn.is_over():
                return JobResult(job.id, job.algorithm, release, done, written, goes_on=True)
        self._generation.complete(job)
        return JobResult(job.id, job.algorithm, release, len(users), written)

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
                return Predictor.load(release_folder(self._home, self._tenant, release), self._bounds.max_events)
            except BrokenReleaseError as error:
                broken = error
        if broken is not None:
            raise broken
        return None

    def _with_changes(self, catalogue: Catalogue) -> Catalogue:
        version, changes = self._source.catalogue_changes(catalogue.version)
        decode = msgspec.json.Decoder(dict).decode
        names = (c.ITEM_ID, c.CATALOGUE_VERSION, c.IS_ACTIVE, c.METADATA)
        rows = zip(*(changes[name].to_pylist() for name in names), strict=True)
        return catalogue.overlaid(
            CatalogueDelta(
                catalogue.version,
                version,
                [ItemChange(id_, at, active, None if text is None else decode(text)) for id_, at, active, text in rows],
            )
        )


def records(users: pa.Table, catalogue: Catalogue, lists: RankedLists) -> pa.Table:
    """The recommendations of these users (AUDIENCE) as rows (RECOMMENDATIONS), best first."""
    rows, columns = np.nonzero(lists.items != NO_ITEM)
    positions = lists.items[rows, columns].tolist()
    cells = zip(rows.tolist(), columns.tolist(), strict=True)
    return pa.table(
        {
            c.USER_ID: users[c.USER_ID].take(rows),
            c.CREATED_AT: users[c.CREATED_AT].take(rows),
            c.ITEM_ID: [catalogue.ids[position] for position in positions],
            c.RANK: (columns + 1).astype(np.int16),
            c.SCORE: lists.scores[rows, columns],
            c.REASON: [lists.explanations[row][column] for row, column in cells],
        },
        schema=RECOMMENDATIONS,
    )
