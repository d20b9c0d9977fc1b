"""Which items are cold: those without a single event."""

import numpy as np

from training.models.contract import Mask, Positions


def cold_items(events: Positions, n_items: int) -> Mask:
    """True for every item of the catalogue that no event names, bool [n_items]. events: int32 [n], their items."""
    return np.bincount(events, minlength=n_items) == 0
