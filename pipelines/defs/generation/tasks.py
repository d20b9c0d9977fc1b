"""The ranking of one batch of users, as a task that any machine of the installation can do.

The run that works on a job reads the database and writes to it, alone. Between it and the tasks are files in a scratch
folder, which every machine sees. A task may be done twice: both times it writes the same file, which appears whole.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import feather

from configs.files import atomic_file
from configs.history import HistorySettings
from feature_store import columns as c
from feature_store.interaction_types import SeenPolicy
from feature_store.schemas import RECOMMENDATIONS
from serving.bulk import recommend_users
from serving.contracts.messages import CatalogueDelta, ItemChange
from serving.overlay import Catalogue
from serving.predictor import Predictor
from serving.queries import RankedLists
from training.models.lists import NO_ITEM


@dataclass(frozen=True)
class UserBatch:
    """Some users of a generation job, and what their lists are made of."""

    release: Path  # folder
    scratch: Path  # of the job's run; files of changes and of batches are in it
    number: int  # of the batch
    n_changes: int  # files of changes that are laid over the release
    algorithm: str
    count: int
    exclude_seen: SeenPolicy
    max_events: int
    max_seen: int

    @property
    def users_file(self) -> Path:
        """AUDIENCE."""
        return self.scratch / f"users-{self.number}.arrow"

    @property
    def events_file(self) -> Path:
        """RECENT_EVENTS."""
        return self.scratch / f"events-{self.number}.arrow"

    @property
    def ranked_file(self) -> Path:
        """RECOMMENDATIONS."""
        return self.scratch / f"ranked-{self.number}.arrow"

    def delete_files(self) -> None:
        for file in (self.users_file, self.events_file, self.ranked_file):
            file.unlink(missing_ok=True)


@dataclass
class _Loaded:
    """The release that this process loaded last, with changes laid over it."""

    release: Path
    predictor: Predictor
    scratch: Path | None = None
    n_changes: int = 0
    catalogue: Catalogue | None = None


_loaded: list[_Loaded] = []
"""At most one. Loading takes seconds, and a process ranks many batches of the same release."""


def load_ranked_release(folder: Path, max_events: int) -> Predictor:
    """Load a release for the batches of this process, in place of the one before. Raises BrokenReleaseError."""
    _loaded.clear()
    predictor = Predictor.load(folder, max_events)
    _loaded.append(_Loaded(folder, predictor))
    return predictor


def rank_batch(batch: UserBatch) -> None:
    """Write the recommendations of a batch to its `ranked_file`, best first."""
    bounds = HistorySettings(max_events=batch.max_events, max_seen=batch.max_seen)
    if not _loaded or _loaded[0].release != batch.release:
        load_ranked_release(batch.release, batch.max_events)
    predictor, catalogue = _loaded[0].predictor, _catalogue_of(batch)
    users, events = feather.read_table(batch.users_file), feather.read_table(batch.events_file)
    lists = recommend_users(
        predictor, catalogue, batch.algorithm, events, len(users), batch.count, batch.exclude_seen, bounds
    )
    with atomic_file(batch.ranked_file) as file:
        feather.write_feather(records(users, catalogue, lists), file)


def changes_file(scratch: Path, number: int) -> Path:
    """The changes of the catalogue (CATALOGUE_CHANGES) after those of the file with the number before."""
    return scratch / f"changes-{number}.arrow"


def write_changes(scratch: Path, number: int, since: int, version: int, changes: pa.Table) -> None:
    """Write a file of changes: those after version `since`, up to `version`."""
    versions = {_SINCE: str(since), _VERSION: str(version)}
    feather.write_feather(changes.replace_schema_metadata(versions), changes_file(scratch, number))


_SINCE, _VERSION = "since", "version"


def _read_changes(scratch: Path, number: int) -> CatalogueDelta:
    changes = feather.read_table(changes_file(scratch, number))
    versions = changes.schema.metadata
    decode = msgspec.json.Decoder(dict).decode
    names = (c.ITEM_ID, c.CATALOGUE_VERSION, c.IS_ACTIVE, c.METADATA)
    rows = zip(*(changes[name].to_pylist() for name in names), strict=True)
    return CatalogueDelta(
        int(versions[_SINCE.encode()]),
        int(versions[_VERSION.encode()]),
        [ItemChange(id_, at, active, None if text is None else decode(text)) for id_, at, active, text in rows],
    )


def _catalogue_of(batch: UserBatch) -> Catalogue:
    """The release's catalogue with the changes of a batch. A process lays each of them over once."""
    loaded = _loaded[0]
    if loaded.catalogue is None or loaded.scratch != batch.scratch or loaded.n_changes > batch.n_changes:
        loaded.scratch, loaded.n_changes, loaded.catalogue = batch.scratch, 0, loaded.predictor.catalogue
    while loaded.n_changes < batch.n_changes:
        delta = _read_changes(batch.scratch, loaded.n_changes + 1)
        loaded.catalogue, loaded.n_changes = loaded.catalogue.overlaid(delta), loaded.n_changes + 1
    return loaded.catalogue


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
