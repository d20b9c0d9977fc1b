"""The rows of embedding tables that each of several processes holds. No process makes a whole table."""

import torch
from torch import Tensor, nn

INITIAL_STD = 0.02
"""Standard deviation of new rows."""
ROWS_DRAWN_AT_ONCE = 1 << 14
"""Rows of a chunk. It is a multiple of 16, because torch draws normal numbers in groups of 16."""


def rows_of_rank(n_rows: int, rank: int, size: int) -> slice:
    """The rows of a table that TorchRec gives to process `rank` of `size` when it divides the table by rows."""
    block = -(-n_rows // size)
    return slice(min(rank * block, n_rows), min((rank + 1) * block, n_rows))


def drawn_rows(n_rows: int, width: int, rows: slice) -> Tensor:
    """Consecutive rows of a new table [n_rows, width], float32, as `EmbeddingCollection` would draw the whole table.

    All numbers of the table are drawn, so that the random state is the same afterwards, but only one chunk is held at a
    time. In chunks torch draws the same numbers as at once if each has a multiple of 16 numbers, and the last chunk has
    at least 16.
    """
    for start, end in _chunks(n_rows):  # `nn.Embedding` draws rows, which `EmbeddingCollection` draws again
        nn.init.normal_(torch.empty(end - start, width))
    kept = torch.empty(max(0, rows.stop - rows.start), width)
    for start, end in _chunks(n_rows):
        drawn = nn.init.normal_(torch.empty(end - start, width), std=INITIAL_STD)
        low, high = max(start, rows.start), min(end, rows.stop)
        if low < high:
            kept[low - rows.start : high - rows.start] = drawn[low - start : high - start]
    return kept


def _chunks(n_rows: int) -> list[tuple[int, int]]:
    """The bounds of all chunks. The last chunk also takes the rows that would not fill one of their own."""
    chunk = ROWS_DRAWN_AT_ONCE
    starts = range(0, max(1, n_rows - chunk + 1), chunk)
    return [(start, n_rows if start == starts[-1] else start + chunk) for start in starts]
