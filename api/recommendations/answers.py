"""Answers of `recommend` and `similar`: their items, why they are degraded, and the impression that records them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from api.database.scope import TenantScope
from api.recommendations.answer_ids import new_recommendation_id
from api.recommendations.bodies import RecommendBody
from api.recommendations.fallback import ALGORITHM as POPULARITY
from api.recommendations.impressions import ImpressionRow
from api.recommendations.pages import kept_request
from api.recommendations.scenario_answers import ScenarioAnswer
from api.recommendations.schemas import RecommendRequest
from api.scenarios.live import LiveScenario
from serving.contracts.messages import RankedItem


@dataclass(frozen=True, slots=True)
class Recommendations:
    """An answer: its items, best first, and what its headers say."""

    recommendation_id: UUID
    items: list[RankedItem]
    release: str | None  # None where popularity answered
    degraded: str | None  # why no model answered, and what of the request was ignored; None where a model did
    holdout: bool = False  # whether popularity answered because the user is held out
    seconds: float | None = None  # that it took
    scenario: LiveScenario | None = None  # whose recipe made the list
    source: str | None = None  # of a scenario's list

    def answered_by(self, requested: str) -> str:
        """The family that answered, a list of a scenario that did, or popularity in their place."""
        return self.source or (requested if self.degraded is None else POPULARITY)


def impression_of(
    scope: TenantScope,
    request: RecommendRequest | RecommendBody,
    found: Recommendations,
    *,
    keep_request: bool = True,
) -> ImpressionRow:
    """The row that records an answer to a user.

    keep_request: whether pages may follow that repeat the request; a later page has its first answer's.
    """
    answered_by = found.answered_by(request.algorithm)
    return ImpressionRow(
        found.recommendation_id,
        scope.tenant_id,
        request.user_id,
        answered_by,
        found.release,
        found.degraded,
        [item.item_id for item in found.items],
        [round(item.score, 6) for item in found.items],
        datetime.now(UTC),
        holdout=found.holdout,
        milliseconds=None if found.seconds is None else round(found.seconds * 1_000, 3),
        scenario=None if found.scenario is None else found.scenario.id,
        scenario_version=None if found.scenario is None else found.scenario.version,
        request=kept_request(request, answered_by) if keep_request else None,
    )


def scenario_recommendations(answer: ScenarioAnswer, seconds: float | None = None) -> Recommendations:
    """A scenario's list as an answer with a new id. seconds: that it took; None: not measured."""
    made, reason = answer.made, answer.reason
    return Recommendations(
        new_recommendation_id(),
        made.items,
        made.release,
        None if reason is None else degraded_label(reason, answer.ignored),
        answer.holdout,
        seconds,
        answer.scenario,
        made.source,
    )


def ignored_fields(request: RecommendRequest | RecommendBody) -> list[str]:
    """The fields of a request that popularity ignores."""
    session = request.context.session_items if request.context else []
    return [name for name, used in (("diversity", request.diversity), ("sessionItems", session)) if used]


def degraded_label(reason: str, ignored: list[str]) -> str:
    """Why an answer is degraded, and the fields that it ignores, as `X-Recommendation-Degraded` says it."""
    return f"{reason}; ignored={','.join(ignored)}" if ignored else reason
