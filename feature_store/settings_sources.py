"""Reads of the settings of tenants' pipelines, as the API has stored them."""

import json
from typing import Any

from feature_store.sources import repeatable_read

_OF_LIVE = (
    "SELECT tenant_id, settings::text FROM pipeline_settings JOIN tenants ON tenants.id = tenant_id "
    "WHERE tenants.deleted_at IS NULL"
)


def read_pipeline_settings(url: str, tenant_id: str | None = None) -> dict[str, dict[str, Any]]:
    """By tenant, what it has set, in the form of `configs.tenant_pipeline`. Tenants that have set nothing are absent.

    tenant_id: the only tenant to read; None reads all.
    """
    with repeatable_read(url) as cursor:
        if tenant_id is None:
            cursor.execute(_OF_LIVE)
        else:
            cursor.execute(f"{_OF_LIVE} AND tenant_id = $1", (tenant_id,))
        return {tenant: json.loads(settings) for tenant, settings in cursor.fetchall()}
