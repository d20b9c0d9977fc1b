"""Model families that other packages provide through entry points. Lists them without importing them."""

import re
from functools import cache
from importlib.metadata import entry_points

ENTRY_POINT_GROUP = "recommendai.models"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TAKEN = {"random", "similar", "evaluation", "champions", "release"}
"""Names that reports, messages and the asset graph use beside families."""


@cache
def plugged_in() -> dict[str, str]:
    """`module:Class` by family. Raises ValueError for a name that cannot be used in paths, models and requests."""
    found = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    for family, location in found.items():
        if not _NAME.fullmatch(family) or family in _TAKEN:
            raise ValueError(f"{location} cannot be the model family {family!r}: take a word in lower case and hyphens")
    return dict(sorted(found.items()))
