"""What a tenant's administrators have set of its pipeline (`configs.tenant_pipeline`), read from the database."""

from collections.abc import Mapping

from configs.tenant_pipeline import TenantPipeline
from feature_store.settings_sources import read_pipeline_settings
from pipelines.resources import Installation

_DEFAULTS = TenantPipeline()


def tenant_settings(installation: Installation, tenant: str) -> TenantPipeline:
    """The tenant's settings now; the defaults where it has set nothing. The webhook's secret is never among them."""
    return all_tenant_settings(installation, tenant)[tenant]


def all_tenant_settings(installation: Installation, only: str | None = None) -> Mapping[str, TenantPipeline]:
    """The settings of every tenant by one query, for sensors and schedules that look at all.

    A tenant that has set nothing has the defaults. only: the one tenant whose settings are wanted.
    """
    read = read_pipeline_settings(installation.database_url(), only)
    return _WithDefaults({tenant: TenantPipeline.model_validate(settings) for tenant, settings in read.items()})


class _WithDefaults(dict[str, TenantPipeline]):
    def __missing__(self, tenant: str) -> TenantPipeline:
        return _DEFAULTS
