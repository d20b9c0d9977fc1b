"""Rows of embedding tables that are divided among processes, so that no process makes the whole table."""

import torch
from torch import Tensor, nn

INITIAL_STD = 0.02
ROWS_DRAWN_AT_ONCE = 1 << 14
"""A multiple of 16, in which torch draws normal numbers."""


def rows_of_rank(n_rows: int, rank: int, size: int) -> slice:
    """The rows of a table that TorchRec places in a process, where it divides the table by rows among `size`."""
    block = -(-n_rows // size)
    return slice(min(rank * block, n_rows), min((rank + 1) * block, n_rows))


def drawn_rows(n_rows: int, width: int, rows: slice) -> Tensor:
    """Some rows of a new table [n_rows, width], float32: those that `EmbeddingCollection` would draw for the whole one.

    All numbers of the table are drawn, so that the random state is the same afterwards, but only a chunk of them is
    held. torch draws the same numbers in chunks as at once where each chunk is a multiple of 16 numbers, and the last
    one no fewer.

    rows: consecutive.
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
    """Bounds of chunks; the last one takes what would be less than a chunk."""
    chunk = ROWS_DRAWN_AT_ONCE
    starts = range(0, max(1, n_rows - chunk + 1), chunk)
    return [(start, n_rows if start == starts[-1] else start + chunk) for start in starts]
