"""Reads item metadata of any schema as labels that items can share."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import Field

from training.models.content_based.encoder import ContentEncoder
from training.models.content_based.fields import Flat, MetadataField, days, flatten, labels, number
from training.models.contract import ModelConfig

DESCRIPTION_FILE = "labels.json"
ARRAYS_FILE = "labels.npz"
TEXT = "text"
MAX_PAIRED_LABELS = 4.0
"""A field whose items have more labels on average is not paired, since pairs grow with the square."""

Blocks = dict[str, sp.csr_array]
"""Name -> float32 [n_items, n_labels] of one kind of label; rows sum to 1, or are empty for items without labels."""


class LabelConfig(ModelConfig):
    """How metadata become labels."""

    bins: int = Field(default=10, ge=2, description="ranges of equal frequency that numbers and dates are divided into")
    paired_fields: int = Field(
        default=8,
        ge=0,
        description="number of fields to pair, those with most labels first; their pairs are labels too",
    )


@dataclass(frozen=True)
class _Pair:
    """Two fields whose pairs of labels are labels too.

    The code of a pair is: column in the first block * number of columns of the second block + column in the second.
    """

    first: str
    second: str
    codes: npt.NDArray[np.int64]  # [n_pairs] ascending, of the pairs that occur

    @property
    def name(self) -> str:
        return f"{self.first} & {self.second}"


class LabelReader:
    """Learns the labels of a catalogue, then reads any item's metadata as these labels; unknown ones are dropped.

    A categorical field gives a block of its labels, a number or date a block of its ranges, all text together a block
    of its words. Pairs of fields give a block of pairs, because two fields together say more than each alone: size and
    kind together tell a small bottle of water from a large one.
    """

    def __init__(self, config: LabelConfig | None = None) -> None:
        self.config = config or LabelConfig()
        self.fields: list[MetadataField] = []
        self.vocabularies: dict[str, dict[str, int]] = {}  # path -> label -> column
        self.edges: dict[str, list[float]] = {}  # path -> bounds between ranges, ascending
        self.pairs: list[_Pair] = []
        self.kept: set[str] | None = None  # names of the blocks that `read` gives; None: all

    def fit(self, encoder: ContentEncoder, metadata: Sequence[dict[str, Any]]) -> Blocks:
        """Learn from a catalogue and return its blocks. encoder: fitted on it; it knows the fields and the words."""
        items = [flatten(item) for item in metadata]
        self.fields = [field for field in encoder.fields if field.kind != "text"]
        singles = {field.path: self._learn(field, items) for field in self.fields}
        wide = [path for path, block in singles.items() if block.nnz <= MAX_PAIRED_LABELS * len(items)]
        paired = sorted(wide, key=lambda path: (-singles[path].shape[1], path))[: self.config.paired_fields]
        for first, second in combinations(sorted(paired), 2):
            _, codes, _ = _cross(singles[first], singles[second])
            self.pairs.append(_Pair(first, second, np.unique(codes)))
        return self._blocks(singles, encoder, items)

    def keep(self, names: Iterable[str]) -> None:
        """Read only these blocks from now on."""
        self.kept = set(names)
        self.pairs = [pair for pair in self.pairs if pair.name in self.kept]
        needed = self.kept.union(*((pair.first, pair.second) for pair in self.pairs))
        self.fields = [field for field in self.fields if field.path in needed]
        self.vocabularies = {path: known for path, known in self.vocabularies.items() if path in needed}
        self.edges = {path: bounds for path, bounds in self.edges.items() if path in needed}

    def read(self, encoder: ContentEncoder, metadata: Sequence[dict[str, Any]]) -> Blocks:
        """The blocks of any items, in the order in which `fit` gave them. encoder: the one of the fit."""
        items = [flatten(item) for item in metadata]
        return self._blocks({field.path: self._single(field, items) for field in self.fields}, encoder, items)

    def save(self, path: Path) -> None:
        """Write the description as JSON and the arrays as .npz into the folder `path`."""
        description = {
            "config": self.config.model_dump(),
            "fields": [field.model_dump() for field in self.fields],
            "vocabularies": {path: list(known) for path, known in self.vocabularies.items()},
            "edges": self.edges,
            "pairs": [(pair.first, pair.second) for pair in self.pairs],
            "kept": None if self.kept is None else sorted(self.kept),
        }
        (path / DESCRIPTION_FILE).write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
        arrays: dict[str, Any] = {f"pair{place}": pair.codes for place, pair in enumerate(self.pairs)}
        np.savez(path / ARRAYS_FILE, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The reader that `save` wrote."""
        description = json.loads((path / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        reader = cls(LabelConfig.model_validate(description["config"]))
        reader.fields = [MetadataField.model_validate(field) for field in description["fields"]]
        reader.vocabularies = {
            path: {label: column for column, label in enumerate(known)}
            for path, known in description["vocabularies"].items()
        }
        reader.edges = description["edges"]
        with np.load(path / ARRAYS_FILE, allow_pickle=False) as arrays:
            reader.pairs = [
                _Pair(first, second, arrays[f"pair{place}"])
                for place, (first, second) in enumerate(description["pairs"])
            ]
        reader.kept = None if description["kept"] is None else set(description["kept"])
        return reader

    def _learn(self, field: MetadataField, items: Sequence[Flat]) -> sp.csr_array:
        if field.kind == "categorical":
            named = dict.fromkeys(label for item in items for label in labels(field, item.get(field.path, [])))
            self.vocabularies[field.path] = {label: column for column, label in enumerate(named)}
        else:
            values = [value for item in items if (value := _number(field, item)) is not None]
            bounds = np.quantile(values, np.linspace(0, 1, self.config.bins + 1)[1:-1])
            self.edges[field.path] = np.unique(bounds).tolist()
        return self._single(field, items)

    def _single(self, field: MetadataField, items: Sequence[Flat]) -> sp.csr_array:
        """The block of one field."""
        if field.kind == "categorical":
            known = self.vocabularies[field.path]
            found = [
                [known[label] for label in labels(field, item.get(field.path, [])) if label in known] for item in items
            ]
            return _shared(found, len(known))
        bounds = self.edges[field.path]
        values = [_number(field, item) for item in items]
        found = [[] if value is None else [int(np.searchsorted(bounds, value))] for value in values]
        return _shared(found, len(bounds) + 1)

    def _blocks(self, singles: Blocks, encoder: ContentEncoder, items: Sequence[Flat]) -> Blocks:
        blocks = dict(singles)
        for pair in self.pairs:
            blocks[pair.name] = _paired(singles[pair.first], singles[pair.second], pair.codes)
        if self.kept is None or TEXT in self.kept:
            words = encoder.words(items)
            if words.shape[1]:
                blocks[TEXT] = _rows_to_one(words)
        return blocks if self.kept is None else {name: block for name, block in blocks.items() if name in self.kept}


def _number(field: MetadataField, item: Flat) -> float | None:
    """The first value of a number or a date (in days) that can be read."""
    read: Callable[[Any], float | None] = days if field.kind == "date" else number
    return next((value for value in map(read, item.get(field.path, [])) if value is not None), None)


def _shared(found: Sequence[list[int]], width: int) -> sp.csr_array:
    """float32 [n, width]: 1 / m in the m columns of each row."""
    counts = np.array([len(columns) for columns in found], dtype=np.int64)
    columns = np.array([column for row in found for column in row], dtype=np.int32)
    values = (1 / np.repeat(np.maximum(counts, 1), counts)).astype(np.float32)
    return sp.csr_array((values, columns, np.concatenate(([0], np.cumsum(counts)))), shape=(len(found), width))


def _cross(
    first: sp.csr_array, second: sp.csr_array
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Row, code and value of all pairs of labels that a row has in both blocks."""
    of_first, of_second = np.diff(first.indptr), np.diff(second.indptr)
    entries = np.repeat(np.arange(first.shape[0]), of_first)  # the row of each entry of the first block
    times = of_second[entries]  # how many partners the entry has
    left = np.repeat(np.arange(first.nnz), times)
    within = np.arange(len(left)) - np.repeat(np.cumsum(times) - times, times)
    right = second.indptr[entries[left]] + within
    codes = first.indices[left].astype(np.int64) * second.shape[1] + second.indices[right]
    return entries[left], codes, first.data[left] * second.data[right]


def _paired(first: sp.csr_array, second: sp.csr_array, codes: npt.NDArray[np.int64]) -> sp.csr_array:
    """The block of pairs of two blocks; pairs that are not among `codes` are dropped."""
    rows, found, values = _cross(first, second)
    columns = np.minimum(np.searchsorted(codes, found), max(len(codes) - 1, 0))
    known = codes[columns] == found if len(codes) else np.zeros(len(found), dtype=bool)
    shape = (first.shape[0], len(codes))
    return _rows_to_one(sp.coo_array((values[known], (rows[known], columns[known])), shape=shape).tocsr())


def _rows_to_one(matrix: sp.csr_array) -> sp.csr_array:
    """Rows scaled to a sum of 1, float32; empty ones stay empty."""
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    scaled = sp.csr_array(matrix, copy=True)
    scaled.data = (scaled.data / np.repeat(np.where(sums > 0, sums, 1), np.diff(scaled.indptr))).astype(np.float32)
    return scaled
