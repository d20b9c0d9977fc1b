"""A tenant's catalogue as it is served: the items and models of a release, with later changes laid over them."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from serving.contracts.messages import CatalogueDelta, CataloguePlace, ItemChange
from serving.filtering import LayeredColumns, MetadataColumns, lay_over
from training.models.contract import Ensemble, FloatMatrix, Mask, Positions, Recommender


@dataclass(frozen=True)
class Catalogue:
    """Items and models at one catalogue version. New items are appended, so the positions of a release stay valid."""

    version: int
    ids: list[str]  # [n_items]
    position_of: dict[str, int]
    metadata: list[dict[str, Any]]  # [n_items]
    visible: Mask  # bool [n_items], False where an item is inactive or deleted
    columns: MetadataColumns | LayeredColumns
    models: dict[str, Recommender]  # by family, each scoring n_items items
    _vectors: dict[str, FloatMatrix] = field(default_factory=dict)
    parts_end: CataloguePlace | None = None  # of the delta whose last part has not come yet; None where all have

    @classmethod
    def of_release(
        cls, version: int, ids: list[str], metadata: list[dict[str, Any]], active: Mask, models: dict[str, Recommender]
    ) -> "Catalogue":
        """The catalogue that a release was built from. Raises ValueError where a model knows other items."""
        for family, model in models.items():
            if model.n_items != len(ids):
                raise ValueError(f"{family} scores {model.n_items} items, the item table has {len(ids)}")
        position_of = {item_id: position for position, item_id in enumerate(ids)}
        return cls(version, ids, position_of, list(metadata), active, MetadataColumns(metadata), models)

    @cached_property
    def all_visible(self) -> bool:
        return bool(self.visible.all())

    def vectors(self, family: str) -> FloatMatrix:
        """Unit item vectors of a family, float32 [n_items, d], computed once."""
        if family not in self._vectors:
            self._vectors[family] = self.models[family].item_vectors()
        return self._vectors[family]

    @property
    def place(self) -> CataloguePlace:
        """Up to where the changes are known: all of this version, and those of the parts of a delta that came since."""
        return self.parts_end or CataloguePlace(self.version)

    def overlaid(self, delta: CatalogueDelta) -> "Catalogue":
        """The catalogue at the delta's version; this one where the delta ends before its place.

        A part of a delta leaves the version as it is, until the last part has come. Changes before this catalogue's
        place are left out, because a newer state of those items may be here already.

        Raises ValueError where the delta starts after this place: the changes in between would be missing.
        """
        place = self.place.order
        if delta.end.order <= place:
            return self
        if delta.start.order > place:
            raise ValueError(f"the delta starts at version {delta.since}, item {delta.since_item}, after {self.place}")
        newer = [change for change in delta.changes if CataloguePlace(change.version, change.item_id).order > place]
        changes = {change.item_id: change for change in sorted(newer, key=lambda change: change.version)}
        edits = self._edits(changes)
        ids, position_of, metadata = self.ids, self.position_of, self.metadata
        added = [position for position in edits if position >= len(ids)]
        if edits:
            metadata = metadata + [{}] * len(added)
            for position, change in edits.items():
                metadata[position] = change.metadata or {}
        if added:
            ids = ids + [edits[position].item_id for position in added]
            position_of = position_of | {ids[position]: position for position in added}
        visible = np.concatenate((self.visible, np.zeros(len(added), dtype=bool)))
        for change in changes.values():
            known = position_of.get(change.item_id)
            if known is not None:
                visible[known] = change.is_active and change.metadata is not None
        columns, models, vectors = self.columns, self.models, self._vectors
        if edits:
            positions = np.array(sorted(edits), dtype=np.int32)
            edited = [metadata[position] for position in positions]
            columns = lay_over(columns, positions, metadata)
            models, vectors = _lay_over(models, positions, edited), {}
        version, end = (delta.version, None) if delta.complete else (self.version, delta.end)
        return Catalogue(version, ids, position_of, metadata, visible, columns, models, vectors, end)

    def _edits(self, changes: dict[str, ItemChange]) -> dict[int, ItemChange]:
        """The changes of metadata by position. New items get the positions after the last one.

        A change that only hides or shows an item is left out, since models do not depend on it.
        """
        edits = {}
        n_items = len(self.ids)
        for change in changes.values():
            if change.metadata is None:
                continue
            position = self.position_of.get(change.item_id, n_items)
            if position == n_items:
                n_items += 1
            elif change.metadata == self.metadata[position]:
                continue
            edits[position] = change
        return edits


def _lay_over(
    models: dict[str, Recommender], positions: Positions, metadata: list[dict[str, Any]]
) -> dict[str, Recommender]:
    """Every model with these items. A model that an ensemble shares with the release is updated once for both."""
    laid: dict[int, Recommender] = {}

    def lay(model: Recommender) -> Recommender:
        if id(model) not in laid:
            laid[id(model)] = (
                model.with_base_models({family: lay(component) for family, component in model.base_models.items()})
                if isinstance(model, Ensemble)
                else model.with_items(positions, metadata)
            )
        return laid[id(model)]

    return {family: lay(model) for family, model in models.items()}
