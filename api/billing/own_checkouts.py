"""Marks the checkouts that this installation creates, so that it recognises them in Stripe's events.

A tenant's id in an event proves nothing. Whoever pays through a payment link of the same account may add a
`client_reference_id` of their choice, and another installation on the account may have a tenant of the same name. So a
checkout of ours carries a mark that only the holder of the webhook's secret can make, for one tenant and one customer.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

TENANT, MARK = "tenant", "checkout"
"""Names in the metadata of a checkout and its subscription."""


def checkout_metadata(secret: str, tenant_id: str, customer_id: str) -> dict[str, str]:
    """The metadata of a checkout of this tenant, by its customer at Stripe."""
    return {TENANT: tenant_id, MARK: _mark(secret, tenant_id, customer_id)}


def marked_tenant(secrets: Sequence[str], metadata: dict[str, Any], customer_id: str | None) -> str | None:
    """The tenant in whose name this installation began the checkout; None where it did not.

    secrets: a mark of any of them is valid.
    """
    tenant_id, mark = metadata.get(TENANT), metadata.get(MARK)
    if not isinstance(tenant_id, str) or not isinstance(mark, str) or customer_id is None:
        return None
    valid = [hmac.compare_digest(mark.encode(), _mark(each, tenant_id, customer_id).encode()) for each in secrets]
    return tenant_id if any(valid) else None


def _mark(secret: str, tenant_id: str, customer_id: str) -> str:
    text = "\0".join(["checkout", tenant_id, customer_id])
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
