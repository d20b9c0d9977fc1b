"""Names of model families in requests and responses: those of every installation, and this one's plug-ins."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError

from configs.plugins import plugged_in
from serving.contracts.messages import ALGORITHMS

FALLBACK_FAMILY = "popularity"
"""What records name where the fallback answered."""


def requested_families() -> tuple[str, ...]:
    """The families that can be requested."""
    return (*ALGORITHMS, *plugged_in())


def _recorded_families() -> tuple[str, ...]:
    return (*requested_families(), FALLBACK_FAMILY)


class _Listed:
    """Lists the names in the schema. Plug-ins are looked up when it is made, not when this module is imported."""

    def __init__(self, names: Callable[[], tuple[str, ...]]) -> None:
        self._names = names

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core_schema), "enum": list(self._names())}


def _one_of(names: Callable[[], tuple[str, ...]]) -> BeforeValidator:
    """Refuses other names in the words of a `Literal`."""

    def known(name: Any) -> Any:
        if not isinstance(name, str) or name not in names():
            *quoted, last = (f"'{each}'" for each in names())
            expected = {"expected": f"{', '.join(quoted)} or {last}"}
            raise PydanticCustomError("literal_error", "Input should be {expected}", expected)
        return name

    return BeforeValidator(known)


GeneratedFamily = Annotated[str, _one_of(requested_families), _Listed(requested_families)]
"""A family that generation jobs take."""
FilteredFamily = Annotated[str, _one_of(_recorded_families), _Listed(_recorded_families)]
"""A family that records are filtered by."""
RecordedFamily = Annotated[str, _Listed(_recorded_families)]
"""The family of a record. It is not checked, since its plug-in may be gone while its records are not."""
