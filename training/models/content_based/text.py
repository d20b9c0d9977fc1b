"""TF-IDF over words of any script, with arrays of its own so that a saved model needs neither pickle nor sklearn."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

MAX_TOKENS = 2_000
_WORD = re.compile(r"\w+")
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+)"
)
"""Scripts written without spaces between words: Thai, Lao, Burmese, Khmer, kana and Han."""


def tokens(text: str) -> list[str]:
    """Case-folded words; runs of a script without spaces give their pairs of neighbouring characters."""
    found: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        for part in _UNSPACED.split(word):
            if not part:
                continue
            if _UNSPACED.match(part) and len(part) > 2:
                found.extend(part[i : i + 2] for i in range(len(part) - 1))
            else:
                found.append(part)
        if len(found) >= MAX_TOKENS:
            return found[:MAX_TOKENS]
    return found


@dataclass(frozen=True)
class Tfidf:
    """tf is 1 + log(count), idf is 1 + log((1 + n) / (1 + df)), rows have unit length (Salton and Buckley, 1988)."""

    vocabulary: dict[str, int]
    idf: npt.NDArray[np.float32]  # [n_words]

    @classmethod
    def fit(cls, documents: Sequence[list[str]], max_words: int, min_documents: int, max_share: float) -> "Tfidf":
        """Learn the words found in at least `min_documents` and at most `max_share` of the documents with words."""
        frequency = Counter(word for document in documents for word in set(document))
        n = sum(1 for document in documents if document)
        kept = [(word, df) for word, df in frequency.items() if df >= min_documents and df <= max(max_share * n, 2)]
        kept = sorted(sorted(kept, key=lambda pair: (-pair[1], pair[0]))[:max_words])
        idf = 1 + np.log((1 + n) / (1 + np.array([df for _, df in kept], dtype=np.float64)))
        return cls({word: i for i, (word, _) in enumerate(kept)}, idf.astype(np.float32))

    def transform(self, documents: Sequence[list[str]]) -> sp.csr_array:
        """float32 [n, n_words], rows of unit length or empty."""
        columns: list[int] = []
        counts: list[int] = []
        offsets = [0]
        for document in documents:
            row = Counter(self.vocabulary[word] for word in document if word in self.vocabulary)
            for column in sorted(row):
                columns.append(column)
                counts.append(row[column])
            offsets.append(len(columns))
        indices = np.array(columns, dtype=np.int32)
        values = (1 + np.log(np.array(counts, dtype=np.float32))) * self.idf[indices]
        matrix = sp.csr_array((values, indices, offsets), shape=(len(documents), len(self.vocabulary)))
        return scale_rows(matrix)


def scale_rows(matrix: sp.csr_array) -> sp.csr_array:
    """The matrix with rows of unit Euclidean length; empty rows stay empty."""
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scaled = matrix.copy()
    scaled.data = scaled.data / np.repeat(np.where(norms > 0, norms, 1), np.diff(scaled.indptr)).astype(np.float32)
    return scaled
