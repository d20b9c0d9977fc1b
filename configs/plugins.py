"""Model families of other packages: which there are, by their entry points. Imports none of them."""

import re
from functools import cache
from importlib.metadata import entry_points

ENTRY_POINT_GROUP = "recommendai.models"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TAKEN = {"random", "similar", "evaluation", "champions", "release"}
"""Words that stand beside families: in reports, in messages and in the asset graph."""


@cache
def plugged_in() -> dict[str, str]:
    """Family -> `module:Class`. Raises ValueError where a name cannot be one of a path, a model and an algorithm."""
    found = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    for family, location in found.items():
        if not _NAME.fullmatch(family) or family in _TAKEN:
            raise ValueError(f"{location} cannot be the model family {family!r}: take a word in lower case and hyphens")
    return dict(sorted(found.items()))
