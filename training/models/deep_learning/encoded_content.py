"""Encodes the content of a catalogue as vectors, into a memory-mapped file where the catalogue is large."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from training.models.content_based.encoder import ContentEncoder
from training.models.contract import FloatMatrix

ENCODED_AT_ONCE = 100_000
"""Items whose content is encoded at a time."""


def encoded_content(encoder: ContentEncoder, metadata: Sequence[dict[str, Any]], folder: Path | None) -> FloatMatrix:
    """The vectors of all items, float32 [n_items, encoder.dimensions].

    For more than ENCODED_AT_ONCE items they are mapped from a temporary file without a name, which is deleted with the
    array. It lies in `folder`, or in the system's folder for temporary files where that is None. The array may be
    written to, which does not change the file.
    """
    if len(metadata) <= ENCODED_AT_ONCE:
        return encoder.transform(metadata)
    with TemporaryFile(dir=folder) as file:
        for start in range(0, len(metadata), ENCODED_AT_ONCE):
            vectors = encoder.transform(metadata[start : start + ENCODED_AT_ONCE])
            file.write(np.ascontiguousarray(vectors, np.float32).data)
        file.flush()
        return np.asarray(np.memmap(file, np.float32, "c", shape=(len(metadata), encoder.dimensions)))
