"""What a generation does, without Dagster: the waiting jobs of a tenant, batch by batch of users."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from feature_store import columns as c
from feature_store.generation_sinks import ClaimedJob, Generation, JobGoneError, generating
from feature_store.generation_sources import GenerationSource, generation_source
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
from training.models.contract import NO_ITEM

MAX_SCORES = 16_000_000
"""Scores held at a time, 64 MB of float32; an ensemble holds a few such matrices."""
MAX_BATCH = 500
"""Users whose recommendations are stored together: what a crash has done again, and how fine progress is."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Generated:
    """What became of one job."""

    job_id: str
    algorithm: str
    release: str = ""
    users: int = 0
    recommendations: int = 0
    problem: str = ""  # why it failed, or was left


def work_off(
    installation: Installation, tenant_id: str, progress: Progress, max_batch: int = MAX_BATCH
) -> Iterator[Generated]:
    """Work off the tenant's jobs, oldest first, those too that come meanwhile; none where another process does so.

    progress: called with users done and users to do, of the part of the job that was left. Raises what breaks off a
    job; it stays as it is, and the next call goes on with it.
    """
    url = installation.database_url()
    with generating(url, tenant_id) as generation:
        while generation is not None and (job := generation.next_job()) is not None:
            with generation_source(url, tenant_id) as source:
                work = _Work(installation, tenant_id, source, generation, job)
                try:
                    yield work.run(progress, max_batch)
                except JobGoneError as gone:
                    yield Generated(job.id, job.algorithm, problem=str(gone))


class _Work:
    """One job."""

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

    def run(self, progress: Progress, max_batch: int) -> Generated:
        job = self._job
        predictor = self._predictor()
        if predictor is None:
            return self._failed("the tenant has no released models yet")
        release = predictor.manifest.release
        if job.algorithm not in predictor.catalogue.models:
            return self._failed(f"the release {release} has no model of the family {job.algorithm}")
        users = self._source.audience(job.id)
        self._generation.begin(job, release, len(users))
        exclude_seen = self._source.exclude_seen()
        catalogue, written = predictor.catalogue, 0
        size = max(1, min(max_batch, MAX_SCORES // max(1, len(catalogue.ids))))
        for start in range(0, len(users), size):
            batch = users.slice(start, size)
            catalogue = self._up_to_date(catalogue)
            at_most = self._bounds.looked_at if SEEN_TYPES[exclude_seen] else self._bounds.max_events
            events = self._source.recent_events(batch[c.USER_ID].to_pylist(), at_most)
            lists = recommend_users(
                predictor, catalogue, job.algorithm, events, len(batch), job.count, exclude_seen, self._bounds
            )
            written += self._generation.write(job, release, records(batch, catalogue, lists), len(batch))
            progress(start + len(batch), len(users))
        self._generation.complete(job)
        return Generated(job.id, job.algorithm, release, len(users), written)

    def _failed(self, problem: str) -> Generated:
        self._generation.fail(self._job, problem)
        return Generated(self._job.id, self._job.algorithm, problem=problem)

    def _predictor(self) -> Predictor | None:
        """The newest sound release, as the model server would have it. None where there is no release.

        Raises BrokenReleaseError where no release is sound.
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

    def _up_to_date(self, catalogue: Catalogue) -> Catalogue:
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
    """The lists of these users (AUDIENCE) as rows (RECOMMENDATIONS), best first."""
    rows, columns = np.nonzero(lists.items != NO_ITEM)
    positions = lists.items[rows, columns].tolist()
    places = zip(rows.tolist(), columns.tolist(), strict=True)
    return pa.table(
        {
            c.USER_ID: users[c.USER_ID].take(rows),
            c.CREATED_AT: users[c.CREATED_AT].take(rows),
            c.ITEM_ID: [catalogue.ids[position] for position in positions],
            c.RANK: (columns + 1).astype(np.int16),
            c.SCORE: lists.scores[rows, columns],
            c.REASON: [lists.explanations[row][column] for row, column in places],
        },
        schema=RECOMMENDATIONS,
    )
