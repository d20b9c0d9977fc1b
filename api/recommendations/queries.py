"""What a request asks the models: the user's history, with the items of the current session at its end."""

from datetime import UTC, datetime

from api.http.tracing import trace_id
from api.recommendations.bodies import RecommendBody
from api.recommendations.history import UserView
from api.recommendations.schemas import RecommendRequest
from feature_store.interaction_types import SEEN_TYPES, TYPE_WEIGHTS
from serving.contracts.filters import Filter
from serving.contracts.histories import with_events
from serving.contracts.messages import HistoryEvent, RecommendQuery

SESSION_TYPE = "click"
"""An item of the current session counts like an event of this type, since the user went to it."""


def recommend_query(
    view: UserView,
    request: RecommendRequest | RecommendBody,
    filter_: Filter | None,
    session_at: datetime | None,
) -> RecommendQuery:
    """The query that a request sends to the models.

    session_at: the time of the events of the session; None: now. All pages of a sequence have the same.
    """
    session = request.context.session_items if request.context else []
    history = view.history
    if session:
        at = int((session_at or datetime.now(UTC)).timestamp() * 1_000_000)
        events = [HistoryEvent(id_, SESSION_TYPE, TYPE_WEIGHTS[SESSION_TYPE], at) for id_ in session]
        history = with_events(bytes(history), events)
    exclude = request.exclude
    if session and SESSION_TYPE in SEEN_TYPES[view.exclude_seen]:
        exclude = [*exclude, *session]
    return RecommendQuery(
        request.algorithm,
        request.count,
        history,
        exclude,
        filter_,
        request.diversity,
        trace_id(),
        view.seen,
    )
