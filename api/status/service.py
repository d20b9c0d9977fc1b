"""The status of a tenant's models."""

import asyncio
from datetime import UTC, datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from api.analytics.repository import AnalyticsRepository
from api.database.scope import TenantScope
from api.status.schemas import FamilyStatus, Status
from serving.client import ServingClient
from serving.contracts.messages import ALGORITHMS, ReleaseInfo, ServingUnavailable

SERVING_TIMEOUT_SECONDS = 1.0


async def status(session: AsyncSession, scope: TenantScope, serving: ServingClient, first_model_after: int) -> Status:
    """The release per family.

    first_model_after: the number of interactions at which a tenant's first training starts.
    """
    repository = AnalyticsRepository(session, scope)
    totals = await repository.totals()
    published = await repository.champions()
    try:
        async with asyncio.timeout(SERVING_TIMEOUT_SECONDS):
            loaded = (await serving.releases()).get(scope.tenant_id)
        state = "up" if loaded is not None else "degraded"
    except (ServingUnavailable, TimeoutError):
        loaded, state = None, "down"
    now = datetime.now(UTC)
    if loaded is not None:
        found = _served(loaded, now)
    else:
        found = [_family(each.family, each.release, each.version, each.published_at, now) for each in published]
    missing = 0 if found else max(0, first_model_after - totals.interactions)
    by_family = {each.family: each for each in found}
    waiting = "No model of this family has passed promotion yet" if found else _until_first(missing)
    plugins = sorted(set(by_family) - set(ALGORITHMS))
    return Status(
        serving=state,
        families=[by_family.get(family) or _none(family, waiting) for family in (*ALGORITHMS, *plugins)],
        interactions_until_first_model=missing,
    )


def _served(loaded: ReleaseInfo, now: datetime) -> list[FamilyStatus]:
    published_at = datetime.fromisoformat(loaded.created_at)
    return [_family(family, loaded.release, version, published_at, now) for family, version in loaded.families.items()]


def _family(family: str, release: str, version: str, published_at: datetime, now: datetime) -> FamilyStatus:
    age = max(0, int((now - published_at).total_seconds()))
    return FamilyStatus(
        family=family, release=release, version=version, published_at=published_at, age_seconds=age, message=None
    )


def _none(family: str, message: str) -> FamilyStatus:
    return FamilyStatus(family=family, release=None, version=None, published_at=None, age_seconds=None, message=message)


def _until_first(missing: int) -> str:
    if missing:
        return f"{missing} more interactions until the first model"
    return "0 more interactions until the first model: the pipeline's next training makes it"
