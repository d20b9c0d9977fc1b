"""What a tenant's administrators have set of its pipeline (`configs.tenant_pipeline`), read from the database."""

from collections.abc import Mapping

from configs.pipelines import PipelineSettings
from configs.tenant_pipeline import TenantPipeline
from feature_store.settings_sources import read_pipeline_settings
from pipelines.resources import Installation


def tenant_settings(installation: Installation, tenant: str) -> TenantPipeline:
    """The tenant's settings now; the defaults where it has set nothing. The webhook's secret is never among them."""
    return all_tenant_settings(installation, tenant)[tenant]


def all_tenant_settings(installation: Installation, only: str | None = None) -> Mapping[str, TenantPipeline]:
    """The settings of every tenant by one query, for sensors and schedules that look at all.

    A tenant that has set nothing has the defaults. only: the one tenant whose settings are wanted.
    """
    read = read_pipeline_settings(installation.database_url(), only)
    return _WithDefaults({tenant: TenantPipeline.stored(settings) for tenant, settings in read.items()})


def in_force(installation: Installation, settings: TenantPipeline) -> PipelineSettings:
    """The installation's settings, with what the tenant has set in their place."""
    training = settings.training
    given = {"retrain_after": training.retrain_after, "train_seconds": training.seconds}
    return installation.pipeline.model_copy(update={name: value for name, value in given.items() if value is not None})


class _WithDefaults(dict[str, TenantPipeline]):
    def __missing__(self, tenant: str) -> TenantPipeline:
        return TenantPipeline()
