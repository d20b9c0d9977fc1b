"""The row of a tenant's pipeline settings, and what a tenant's own row says of its recommendations."""

from sqlalchemy import func, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope
from api.settings.tables import PipelineSettingsRow
from api.tenants.problems import TenantGone
from api.tenants.tables import Tenant
from configs.tenant_pipeline import TenantPipeline


class PipelineSettingsRepository:
    """The pipeline settings of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def find(self) -> PipelineSettingsRow | None:
        """The tenant's row; None where it has set nothing."""
        return await self._session.get(PipelineSettingsRow, self._tenant_id)

    async def lock(self) -> None:
        """Until the transaction ends, no other changes the settings, and the tenant is not deleted.

        Raises TenantGone.
        """
        live = select(Tenant.id).where(Tenant.id == self._tenant_id, col(Tenant.deleted_at).is_(None))
        if (await self._session.exec(live.with_for_update(key_share=True))).one_or_none() is None:
            raise TenantGone

    async def put(self, settings: TenantPipeline, webhook_secret: str | None) -> None:
        """Replace the settings."""
        written = {
            "settings": settings.model_dump(mode="json", by_alias=True, exclude_unset=True),
            "webhook_secret": webhook_secret,
            "updated_at": func.now(),
        }
        statement = insert(PipelineSettingsRow).values(tenant_id=self._tenant_id, **written)
        await self._session.exec(statement.on_conflict_do_update(index_elements=["tenant_id"], set_=written))

    async def forget_address(self, email: str) -> None:
        """Take an address out of those that get alerts."""
        connection = await self._session.connection()
        await connection.execute(_FORGET_ADDRESS, {"tenant": self._tenant_id, "email": email})


class RecommendationSettingsRepository:
    """What one tenant has set of its recommendations."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def holdout_share(self, *, for_update: bool = False) -> float:
        """The share of users that are held out. for_update: no other changes it until the transaction ends.

        Raises TenantGone.
        """
        statement = select(Tenant.holdout_share).where(Tenant.id == self._tenant_id, col(Tenant.deleted_at).is_(None))
        if for_update:
            statement = statement.with_for_update(key_share=True)
        share = (await self._session.exec(statement)).one_or_none()
        if share is None:
            raise TenantGone
        return share

    async def set_holdout_share(self, share: float) -> None:
        await self._session.exec(update(Tenant).where(col(Tenant.id) == self._tenant_id).values(holdout_share=share))


_FORGET_ADDRESS = text(
    """
    UPDATE pipeline_settings SET settings = jsonb_set(settings, '{alerts,emails}', (
        SELECT coalesce(jsonb_agg(address), '[]')
        FROM jsonb_array_elements_text(settings #> '{alerts,emails}') AS address
        WHERE lower(address) <> lower(:email)
    ))
    WHERE tenant_id = :tenant AND settings #> '{alerts,emails}' IS NOT NULL
    """
)
