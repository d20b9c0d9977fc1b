"""The content of a catalogue as vectors, in a mapped file where the catalogue is large."""

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

    Those of more than ENCODED_AT_ONCE items are mapped from a file that has no name and goes with the array, in
    `folder` or a temporary one. They may be written to, which does not change the file.
    """
    if len(metadata) <= ENCODED_AT_ONCE:
        return encoder.transform(metadata)
    with TemporaryFile(dir=folder) as file:
        for start in range(0, len(metadata), ENCODED_AT_ONCE):
            vectors = encoder.transform(metadata[start : start + ENCODED_AT_ONCE])
            file.write(np.ascontiguousarray(vectors, np.float32).data)
        file.flush()
        return np.asarray(np.memmap(file, np.float32, "c", shape=(len(metadata), encoder.dimensions)))
