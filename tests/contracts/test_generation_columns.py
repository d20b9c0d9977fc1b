"""The pipeline's rows of a generation fit the API's tables, and both use the same values."""

import re
from typing import get_args

import pyarrow as pa
import pytest
from sqlalchemy.dialects import postgresql
from sqlmodel import SQLModel

from api.generation.schemas import UserSegment
from api.generation.tables import GenerationJob
from api.http.families import FALLBACK_FAMILY
from api.recommendations.fallback import ALGORITHM as POPULARITY
from api.records.tables import RecommendationRecord
from configs import plugins
from feature_store import columns as c
from feature_store import generation_sinks
from feature_store.schemas import RECOMMENDATIONS
from serving.contracts.messages import ALGORITHMS

TYPES = {"TEXT": pa.string(), "SMALLINT": pa.int16(), "DOUBLE PRECISION": pa.float64()}


def words_of(model: type[SQLModel], column: str) -> tuple[str, ...]:
    texts = [str(check.sqltext) for check in model.__table__.constraints if hasattr(check, "sqltext")]
    return next(tuple(re.findall(r"'([\w-]+)'", text)) for text in texts if text.startswith(f"{column} IN"))


def test_records_are_written_with_every_column_that_has_no_default() -> None:
    match = re.search(r"INSERT INTO recommendations \(([^)]*)\)", generation_sinks._WRITE)
    assert match is not None
    written = set(match[1].split(", "))
    columns = RecommendationRecord.__table__.columns
    assert written <= set(columns.keys())
    needed = {column.name for column in columns if not column.nullable and column.server_default is None}
    assert needed <= written


@pytest.mark.parametrize("name", [c.USER_ID, c.ITEM_ID, c.RANK, c.SCORE, c.REASON])
def test_arrow_types_of_records_are_those_of_the_table(name: str) -> None:
    column = RecommendationRecord.__table__.columns[name]
    assert RECOMMENDATIONS.field(name).type == TYPES[column.type.compile(postgresql.dialect())]
    assert RECOMMENDATIONS.field(name).nullable == column.nullable is False


def test_segments_and_families_are_the_same_words_everywhere() -> None:
    assert words_of(GenerationJob, "user_segment") == get_args(UserSegment) == c.USER_SEGMENTS
    assert FALLBACK_FAMILY == POPULARITY


def test_a_job_may_name_any_family_that_a_plug_in_may_add() -> None:
    texts = [str(check.sqltext) for check in GenerationJob.__table__.constraints if hasattr(check, "sqltext")]
    text = next(text for text in texts if text.startswith("algorithm "))
    (pattern,) = re.findall(r"'(.*)'", text)
    assert all(re.fullmatch(pattern, family) for family in (*ALGORITHMS, "pairwise"))
    assert plugins._NAME.pattern == pattern.removeprefix("^").removesuffix("$")
