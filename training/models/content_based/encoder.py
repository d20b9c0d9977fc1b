"""Encodes item metadata of any schema as vectors: text, labels, lists, numbers, dates and nested objects."""

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import Field

from training.models.content_based.fields import Flat, MetadataField, days, flatten, infer_fields, labels, number
from training.models.content_based.text import Tfidf, scale_rows, tokens
from training.models.contract import FloatMatrix, ModelConfig

DESCRIPTION_FILE = "encoder.json"
ARRAYS_FILE = "encoder.npz"


class EncoderConfig(ModelConfig):
    """How metadata become vectors."""

    text_dimensions: int = Field(default=96, ge=1, description="width of the text block after the SVD")
    label_dimensions: int = Field(default=256, ge=1, description="widest block of labels kept without an SVD")
    max_words: int = Field(default=20_000, ge=1, description="largest vocabulary; the most frequent words are kept")
    max_word_share: float = Field(
        default=0.5, gt=0, le=1, description="words in a larger share of the items are dropped"
    )
    max_labels: int = Field(default=1_000, ge=1, description="labels per field with a column of their own")
    hash_buckets: int = Field(default=32, ge=1, description="columns per field for rare and later labels")
    max_fields: int = Field(default=200, ge=1, description="largest number of metadata paths; the most common are read")
    text_weight: float = Field(default=1.0, ge=0, description="largest length of the text part of a vector")
    label_weight: float = Field(default=1.0, ge=0, description="length of the part of one categorical field")
    number_weight: float = Field(default=0.3, ge=0, description="length of one standard deviation of a number")


class ContentEncoder:
    """Learns the schema and vocabulary of a catalogue, then maps any item's metadata to a vector, without a service.

    A vector has three blocks. Text: TF-IDF, then SVD. Labels: multi-hot by inverse frequency, rare and unknown ones
    hashed, each field of unit length, then SVD where the block is too wide. Numbers: standardised, clipped at three
    deviations. A part that is missing or cannot be read is zero, and so is an item that shares nothing with the
    catalogue.
    """

    def __init__(self, config: EncoderConfig | None = None) -> None:
        self.config = config or EncoderConfig()
        self.fields: list[MetadataField] = []
        self.tfidf = Tfidf({}, np.empty(0, np.float32))
        self.label_weights: dict[str, dict[str, float]] = {}  # path -> label -> inverse frequency
        self.rare_weights: dict[str, float] = {}  # path -> weight of labels without a column
        self.text_axes = np.empty((0, 0), np.float32)  # [n_words, d_text]; empty: the words themselves
        self.label_axes = np.empty((0, 0), np.float32)  # [n_label_columns, d_labels]; empty: the labels themselves
        self.means = np.empty(0, np.float32)  # [n_numbers]
        self.deviations = np.empty(0, np.float32)  # [n_numbers]

    @property
    def dimensions(self) -> int:
        """Width of the vectors; at least 1, so that an item without any metadata has one too."""
        return max(1, self._text_width + self._label_width + len(self._numeric))

    def fit(self, metadata: Sequence[dict[str, Any]], seed: int = 0) -> Self:
        """Learn from the metadata of a catalogue and return self. Raises ValueError for an empty catalogue."""
        if not metadata:
            raise ValueError("content cannot be learned from an empty catalogue: add items first")
        items = [flatten(item) for item in metadata]
        self.fields = infer_fields(items, self.config.max_fields)
        self._fit_labels(items)
        self._fit_numbers(items)
        documents = self._documents(items)
        self.tfidf = Tfidf.fit(documents, self.config.max_words, 2, self.config.max_word_share)
        self.text_axes = _axes(self.tfidf.transform(documents), self.config.text_dimensions, seed)
        self.label_axes = _axes(self._labels(items), self.config.label_dimensions, seed)
        return self

    def transform(self, metadata: Sequence[dict[str, Any]]) -> FloatMatrix:
        """Vectors of items, float32 [n, dimensions], finite; not scaled to unit length."""
        items = [flatten(item) for item in metadata]
        text = _project(self.words(items), self.text_axes) * self.config.text_weight
        label = _project(self._labels(items), self.label_axes) * self.config.label_weight
        numbers = self._numbers(items)
        deviation = np.where(self.deviations > 0, self.deviations, 1)
        standard = np.nan_to_num((numbers - self.means) / deviation, nan=0.0)
        blocks = np.hstack([text, label, np.clip(standard, -3, 3) * self.config.number_weight]).astype(np.float32)
        return blocks if blocks.shape[1] else np.zeros((len(items), 1), np.float32)

    def words(self, items: Sequence[Flat]) -> sp.csr_array:
        """TF-IDF of the text of items, float32 [n, n_words], rows of unit length or empty."""
        return self.tfidf.transform(self._documents(items))

    def save(self, path: Path) -> None:
        """Write the description as JSON and the arrays as .npz into the folder `path`."""
        path.mkdir(parents=True, exist_ok=True)
        description = {
            "config": self.config.model_dump(),
            "fields": [field.model_dump() for field in self.fields],
            "words": list(self.tfidf.vocabulary),
            "label_weights": self.label_weights,
            "rare_weights": self.rare_weights,
        }
        (path / DESCRIPTION_FILE).write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
        np.savez(
            path / ARRAYS_FILE,
            idf=self.tfidf.idf,
            text_axes=self.text_axes,
            label_axes=self.label_axes,
            means=self.means,
            deviations=self.deviations,
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """The encoder that `save` wrote; its vectors are equal to the saved one's."""
        description = json.loads((path / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        encoder = cls(EncoderConfig.model_validate(description["config"]))
        encoder.fields = [MetadataField.model_validate(field) for field in description["fields"]]
        encoder.label_weights = description["label_weights"]
        encoder.rare_weights = description["rare_weights"]
        with np.load(path / ARRAYS_FILE, allow_pickle=False) as arrays:
            words = {word: i for i, word in enumerate(description["words"])}
            encoder.tfidf = Tfidf(words, arrays["idf"])
            encoder.text_axes, encoder.label_axes = arrays["text_axes"], arrays["label_axes"]
            encoder.means, encoder.deviations = arrays["means"], arrays["deviations"]
        return encoder

    @property
    def _numeric(self) -> list[MetadataField]:
        return [field for field in self.fields if field.kind in ("numeric", "date")]

    @property
    def _categorical(self) -> list[MetadataField]:
        return [field for field in self.fields if field.kind == "categorical"]

    @property
    def _text_width(self) -> int:
        return self.text_axes.shape[1] if self.text_axes.size else len(self.tfidf.vocabulary)

    @property
    def _label_columns(self) -> int:
        return sum(len(self.label_weights[field.path]) + self.config.hash_buckets for field in self._categorical)

    @property
    def _label_width(self) -> int:
        return self.label_axes.shape[1] if self.label_axes.size else self._label_columns

    def _documents(self, items: Sequence[Flat]) -> list[list[str]]:
        paths = [field.path for field in self.fields if field.kind == "text"]
        return [tokens(" ".join(str(value) for path in paths for value in item.get(path, []))) for item in items]

    def _fit_labels(self, items: Sequence[Flat]) -> None:
        for field in self._categorical:
            counts = Counter(label for item in items for label in labels(field, item.get(field.path, [])))
            common = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: self.config.max_labels]
            weigh = {label: 1 + float(np.log(len(items) / count)) for label, count in common if count > 1}
            self.label_weights[field.path] = weigh
            self.rare_weights[field.path] = 1 + float(np.log(len(items)))

    def _labels(self, items: Sequence[Flat]) -> sp.csr_array:
        """float32 [n, n_label_columns]; the part of each field has unit length."""
        blocks = []
        for field in self._categorical:
            weights, rare = self.label_weights[field.path], self.rare_weights[field.path]
            column_of = {label: i for i, label in enumerate(weights)}
            rows, columns, values = [], [], []
            for row, item in enumerate(items):
                for label in labels(field, item.get(field.path, [])):
                    bucket = zlib.crc32(label.encode()) % self.config.hash_buckets
                    rows.append(row)
                    columns.append(column_of.get(label, len(weights) + bucket))
                    values.append(weights.get(label, rare))
            shape = (len(items), len(weights) + self.config.hash_buckets)
            block = sp.coo_array((np.array(values, np.float32), (rows, columns)), shape=shape)
            blocks.append(scale_rows(block.tocsr()))
        return sp.hstack(blocks, format="csr") if blocks else sp.csr_array((len(items), 0), dtype=np.float32)

    def _fit_numbers(self, items: Sequence[Flat]) -> None:
        numbers = self._numbers(items)
        known = ~np.isnan(numbers)
        counts = np.maximum(known.sum(axis=0), 1)
        means = np.where(known, numbers, 0).sum(axis=0) / counts
        self.means = means
        self.deviations = np.sqrt(np.where(known, (numbers - means) ** 2, 0).sum(axis=0) / counts)

    def _numbers(self, items: Sequence[Flat]) -> npt.NDArray[np.float64]:
        """[n, n_numbers], NaN where there is none."""
        numbers = np.full((len(items), len(self._numeric)), np.nan)
        for column, field in enumerate(self._numeric):
            read = days if field.kind == "date" else number
            for row, item in enumerate(items):
                found = [x for x in map(read, item.get(field.path, [])) if x is not None]
                if found:
                    value = sum(found) / len(found)
                    numbers[row, column] = np.log1p(max(value, 0)) if field.logarithmic else value
        return numbers


def _axes(matrix: sp.csr_array, dimensions: int, seed: int) -> FloatMatrix:
    """Right singular vectors, float32 [n_columns, dimensions]; empty where the matrix is narrow enough as it is.

    Randomised SVD (Halko, Martinsson and Tropp, 2011).
    """
    if matrix.shape[1] <= dimensions or matrix.shape[0] < 2:
        return np.empty((0, 0), np.float32)
    from sklearn.utils.extmath import randomized_svd  # a second to import, and serving never fits

    width = min(dimensions, *matrix.shape)
    _, _, rows = randomized_svd(sp.csr_matrix(matrix), n_components=width, random_state=seed)
    return np.ascontiguousarray(rows.T, dtype=np.float32)


def _project(matrix: sp.csr_array, axes: FloatMatrix) -> FloatMatrix:
    return matrix @ axes if axes.size else matrix.toarray()
