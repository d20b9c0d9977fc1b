"""The scoring of the sequential model: histories encoded once, for their scores and for the evidence of their lists."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from feature_store.online import Histories
from training.models.contract import FloatMatrix, Positions
from training.models.deep_learning.attribution import MAX_DIRECTIONS
from training.models.deep_learning.inference import EncodedHistories, HistoryEncoder, main_directions
from training.models.lists import NO_ITEM, ListContributions
from training.models.scoring import Scoring

if TYPE_CHECKING:
    from training.models.deep_learning.model import DeepLearning

PLACES_AT_ONCE = 256
"""Histories that are encoded together have about so many events: few calls, and arrays that stay in a core's cache."""
MAX_KEPT = 4_000
"""Events whose activations are kept for the evidence, 6 kB each; later histories are encoded again."""


class SequentialScoring(Scoring):
    """One batch of histories, encoded in NumPy (`inference`); the item vectors are torch's own memory."""

    def __init__(self, model: "DeepLearning", encoder: HistoryEncoder, histories: Histories) -> None:
        self._model, self._encoder, self._histories = model, encoder, histories
        self._lengths = np.minimum(histories.lengths, model.config.max_length)
        self._kept: dict[int, EncodedHistories] = {}  # by the first row
        targets = model.targets.numpy()
        users = np.empty((len(histories), targets.shape[1]), dtype=np.float32)
        kept = 0
        for start, end in self._groups():
            encoded = self._encode(start, end)
            users[start:end] = encoded.vectors
            if kept < MAX_KEPT:
                self._kept[start] = encoded
                kept += len(encoded.places.ages)
        self.scores = users @ targets.T
        model.add_repeat_scores(self.scores, histories)

    def component_scores(self, items: Positions) -> dict[str, FloatMatrix]:
        return {self._model.family: self.scores[np.arange(len(items))[:, None], items]}

    def contributions(self, items: Positions) -> list[ListContributions]:
        """From the presence gradients of the listed items alone, by their main directions (`attribution`)."""
        if self._model.fidelity.threshold is None:
            return self._model.no_contributions(items)
        k = items.shape[1]
        wanted = self._model.targets.numpy()[items]  # [b, k, d]
        wanted[items == NO_ITEM] = 0
        main, along = main_directions(wanted, MAX_DIRECTIONS)
        gradients = np.zeros((k, len(items), int(self._lengths.max(initial=0))), dtype=np.float32)
        for start, end in self._groups():
            encoded = self._kept.get(start)
            if encoded is None:
                encoded = self._encode(start, end)
            presence = self._encoder.presence_gradients(encoded, along[start:end].transpose(1, 0, 2))
            first = 0
            for row in range(start, end):
                length = int(self._lengths[row])
                np.matmul(main[row], presence[:, first : first + length], out=gradients[:, row, :length])
                first += length
        return self._model.contributions_of(self._histories, items, gradients)

    def _groups(self) -> Iterator[tuple[int, int]]:
        """Ranges of rows that are encoded together."""
        start, places = 0, 0
        for row, length in enumerate(self._lengths.tolist()):
            if row > start and places + length >= PLACES_AT_ONCE:
                yield start, row
                start, places = row, 0
            places += length + 1
        if start < len(self._lengths):
            yield start, len(self._lengths)

    def _encode(self, start: int, end: int) -> EncodedHistories:
        """The histories of these rows."""
        histories, lengths = self._histories, self._lengths[start:end]
        ends = histories.offsets[start + 1 : end + 1]
        if end - start == 1:
            events: slice | np.ndarray = slice(int(ends[0] - lengths[0]), int(ends[0]))
        else:
            bounds = np.cumsum(lengths)
            events = np.arange(bounds[-1]) + np.repeat(ends - bounds, lengths)
        items = self._model.items.numpy().take(histories.items[events], axis=0)
        return self._encoder.encode(items, histories.types[events], histories.weights[events], lengths)
