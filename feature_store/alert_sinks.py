"""Adds alerts to those that the API delivers. The SQL names tables as text, which a contract test holds against it."""

from feature_store.tenant_writes import write_transaction

KEPT_ALERTS = 200
"""Alerts of a tenant that are kept, delivered or not; an older one goes where another comes."""

_ADD = """
INSERT INTO alerts (tenant_id, event, subject, facts)
SELECT id, $2, $3, $4::text::jsonb FROM tenants WHERE id = $1 AND deleted_at IS NULL FOR SHARE
RETURNING id::text
"""
_DELETE_OLDEST = """
DELETE FROM alerts WHERE tenant_id = $1 AND id IN (
    SELECT id FROM alerts WHERE tenant_id = $1 ORDER BY created_at DESC, id OFFSET $2::bigint
)
"""


def add_alert(url: str, tenant_id: str, event: str, subject: str, facts: str) -> str | None:
    """Add an alert, and return its id; None where the tenant was deleted.

    facts: a JSON object.
    """
    with write_transaction(url) as cursor:
        cursor.execute(_ADD, (tenant_id, event, subject, facts))
        added = cursor.fetchone()
        cursor.execute(_DELETE_OLDEST, (tenant_id, KEPT_ALERTS))
    return None if added is None else str(added[0])
