"""What the type of an interaction means: its code in arrays, its weight, and whether it makes an item *seen*.

Each meaning is defined once here, for arrays and, where it is needed, for SQL. The SQL forms read the columns
`interaction_type` and `value`, which PostgreSQL's table and the files of the lake both have.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from feature_store import columns as c

TYPE_CODES = {name: code for code, name in enumerate(c.INTERACTION_TYPES)}
TYPE_WEIGHTS = {"view": 0.25, "click": 0.5, "like": 0.8, "purchase": 1.0}
HALF_LIFE_DAYS = 30.0
"""An event of this age weighs half as much as a new one, where popularity is counted without a model."""
_WEIGHT_OF_CODE = np.array([TYPE_WEIGHTS[name] for name in c.INTERACTION_TYPES], dtype=np.float32)

SeenPolicy = Literal["none", "bought", "all"]
"""Which of a user's earlier items are left out of recommendations: the `excludeSeen` of a tenant or of a request."""

SEEN_TYPES: dict[SeenPolicy, tuple[str, ...]] = {"none": (), "bought": ("purchase",), "all": c.INTERACTION_TYPES}
"""The types of interaction that make an item seen, by policy."""


def event_weight(interaction_type: str, value: float | None) -> float:
    """The weight of one event in [0, 1]: its own value where the sender gave one, else that of its type."""
    return TYPE_WEIGHTS[interaction_type] if value is None else value


def event_weights(types: npt.NDArray[np.int8], values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`event_weight` over columns. types: int8 [n] codes; values: float32 [n], NaN where none was given."""
    return np.where(np.isnan(values), _WEIGHT_OF_CODE[types], values).astype(np.float32)


def makes_seen(types: npt.NDArray[np.int8], policy: SeenPolicy) -> npt.NDArray[np.bool_]:
    """Whether each event makes its item seen under the policy. types: int8 [n] codes; returns bool [n]."""
    return np.isin(types, [TYPE_CODES[name] for name in SEEN_TYPES[policy]])


def seen_policy(text: str) -> SeenPolicy:
    """The policy of this name. Raises ValueError for any other text."""
    for policy in get_args(SeenPolicy):
        if text == policy:
            return policy
    raise ValueError(f"{text!r} is no policy on seen items; known are {', '.join(get_args(SeenPolicy))}")


def _case(branches: dict[str, float] | dict[str, int]) -> str:
    whens = " ".join(f"WHEN '{name}' THEN {value}" for name, value in branches.items())
    return f"CASE interaction_type {whens} END"


TYPE_CODE_SQL = _case(TYPE_CODES)
"""The code of a row's type."""

EVENT_WEIGHT_SQL = f"coalesce(value, {_case(TYPE_WEIGHTS)})"
"""`event_weight` of a row."""
