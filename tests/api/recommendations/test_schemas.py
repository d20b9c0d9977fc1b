"""The models that document the answers name the fields that are sent."""

import msgspec
import pytest
from pydantic import BaseModel

from api.recommendations.schemas import RecommendedItem, SimilarItem
from serving.contracts.messages import RankedItem, ScoredItem


@pytest.mark.parametrize(("documented", "sent"), [(RecommendedItem, RankedItem), (SimilarItem, ScoredItem)])
def test_the_documented_fields_are_those_that_are_sent(documented: type[BaseModel], sent: type[msgspec.Struct]) -> None:
    names = [field.encode_name for field in msgspec.structs.fields(sent)]
    assert list(documented.model_json_schema(by_alias=True)["properties"]) == names
