"""Valid bodies of the direct route, decoded by msgspec.

The type takes a part of what `NewInteraction` takes, with the same meaning; a property test holds it to that. The rest,
such as times with an offset, takes the general way.
"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from api.http.direct_routes import DirectId, read_json
from api.interactions.schemas import plausible, storable
from serving.contracts.messages import UnitInterval

Moment = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z\Z")
]
"""A time in the most usual of the forms that `AwareInstant` takes."""


class _SentInteraction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    user_id: DirectId
    item_id: DirectId
    interaction_type: Literal["view", "click", "like", "purchase"]
    value: UnitInterval | None = None
    timestamp: Moment | None = None
    recommendation_id: UUID | None = None
    create_item: bool = False


class InteractionBody(msgspec.Struct, frozen=True):
    """A `NewInteraction`."""

    user_id: str
    item_id: str
    interaction_type: Literal["view", "click", "like", "purchase"]
    value: float | None
    timestamp: datetime | None
    recommendation_id: UUID | None
    create_item: bool


_decoder = msgspec.json.Decoder(_SentInteraction)


def read_interaction(body: bytes) -> InteractionBody:
    """The interaction. Raises one of `NOT_DIRECT` for what takes the general way."""
    sent = read_json(_decoder, body)
    return InteractionBody(
        sent.user_id,
        sent.item_id,
        sent.interaction_type,
        None if sent.value is None else storable(sent.value),
        None if sent.timestamp is None else plausible(datetime.fromisoformat(sent.timestamp)),
        sent.recommendation_id,
        sent.create_item,
    )
