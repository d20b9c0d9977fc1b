"""Shows and replaces the settings of a tenant's pipeline and of its recommendations."""

import secrets
from collections.abc import Iterator
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit.service import note_tenant
from api.database.scope import TenantScope
from api.http.outgoing import OutgoingRefusedError, require_public
from api.http.problems import Invalid
from api.settings.repository import PipelineSettingsRepository, RecommendationSettingsRepository
from api.settings.schemas import AlertsOut, PipelineSettingsOut, RecommendationSettings
from configs.tenant_pipeline import SettingsGroup, TenantPipeline

_TEXTS = ("alerts.webhookUrl", "alerts.emails", "promotion.floors")
"""Settings whose values are texts that people write: the audit trail names these settings, and not their values."""


async def current_settings(session: AsyncSession, scope: TenantScope) -> PipelineSettingsOut:
    """The settings in force."""
    row = await PipelineSettingsRepository(session, scope).find()
    if row is None:
        return _shown(TenantPipeline(), has_secret=False)
    return _shown(TenantPipeline.stored(row.settings), has_secret=row.webhook_secret is not None)


async def replace_settings(session: AsyncSession, scope: TenantScope, new: TenantPipeline) -> PipelineSettingsOut:
    """Replace all settings. Raises Invalid for a webhook that is not on the internet, TenantGone.

    The webhook's secret stays where none is sent. Where there is none it is made, and goes with the webhook's URL.
    """
    url, sent = new.alerts.webhook_url, new.alerts.webhook_secret
    if url is not None:
        try:
            require_public(url)
        except OutgoingRefusedError as error:
            raise Invalid.field("alerts.webhookUrl", str(error)) from error
    repository = PipelineSettingsRepository(session, scope)
    await repository.lock()
    row = await repository.find()
    before = TenantPipeline() if row is None else TenantPipeline.stored(row.settings)
    known = None if row is None else row.webhook_secret
    made = None if url is None or sent is not None or known is not None else f"whsec_{secrets.token_urlsafe(32)}"
    secret = None if url is None else sent.get_secret_value() if sent is not None else known or made
    await repository.put(new, secret)
    changed = dict(_changes(before, new))
    if secret != known:
        changed["alerts.webhookSecret"] = {}
    if changed:
        detail = {name: change for name, change in changed.items() if change}
        await note_tenant(session, scope, "pipeline.changed", {"changed": sorted(changed), **detail})
    return _shown(new, has_secret=secret is not None, made=made)


async def recommendation_settings(session: AsyncSession, scope: TenantScope) -> RecommendationSettings:
    """The settings in force. Raises TenantGone."""
    return RecommendationSettings(holdout_share=await RecommendationSettingsRepository(session, scope).holdout_share())


async def replace_recommendation_settings(
    session: AsyncSession, scope: TenantScope, new: RecommendationSettings
) -> RecommendationSettings:
    """Replace all settings, and note what changed. Raises TenantGone."""
    repository = RecommendationSettingsRepository(session, scope)
    before = await repository.holdout_share(for_update=True)
    if before != new.holdout_share:
        await repository.set_holdout_share(new.holdout_share)
        detail = {"holdoutShare": {"before": before, "after": new.holdout_share}}
        await note_tenant(session, scope, "recommendations.changed", {"changed": ["holdoutShare"], **detail})
    return new


async def forget_address(session: AsyncSession, scope: TenantScope, email: str | None) -> None:
    """Take the address of an erased user out of those that get alerts."""
    if email is not None:
        await PipelineSettingsRepository(session, scope).forget_address(email)


def _shown(settings: TenantPipeline, *, has_secret: bool, made: str | None = None) -> PipelineSettingsOut:
    alerts = AlertsOut(**settings.alerts.model_dump(), webhook_secret_set=has_secret, webhook_secret=made)
    return PipelineSettingsOut(
        search=settings.search,
        training=settings.training,
        promotion=settings.promotion,
        drift=settings.drift,
        alerts=alerts,
    )


def _changes(before: SettingsGroup, after: SettingsGroup, within: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The path of each setting that changes, with both values; without them where the value is a text of a person."""
    for name, field in type(after).model_fields.items():
        if field.exclude:
            continue
        path = f"{within}{field.alias}"
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(new, SettingsGroup):
            yield from _changes(old, new, f"{path}.")
        elif old != new:
            yield path, {} if path in _TEXTS else {"before": old, "after": new}
