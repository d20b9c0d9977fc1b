"""Tells a tenant what its administrators want to hear of, at the addresses that they have set.

An alert becomes a row, which the API delivers (`api.alerts.delivery`): signed, again where it fails, for a day.
"""

import json
from collections.abc import Mapping
from typing import Any

from configs.tenant_pipeline import AlertEvent
from feature_store.alert_sinks import add_alert
from pipelines.resources import Installation
from pipelines.tenant_settings import tenant_settings

MAX_SUBJECT = 200
MAX_FACTS = 16_000
"""Characters of the facts as JSON."""


def send_alert(
    installation: Installation, tenant: str, event: AlertEvent, subject: str, facts: Mapping[str, Any]
) -> str | None:
    """Queue an alert where the tenant wants to hear of such events and has an address. Returns its id, or None.

    Args:
        subject: becomes one line of at most `MAX_SUBJECT` characters.
        facts: JSON values by name, the most important first. What exceeds `MAX_FACTS` is left out, and counted in
            `more`. They leave the platform, so they name no user and hold no secret.

    Raises TypeError, ValueError for facts that are no JSON.
    """
    alerts = tenant_settings(installation, tenant).alerts
    if event not in alerts.events or not (alerts.webhook_url or alerts.emails):
        return None
    line = "".join(filter(str.isprintable, " ".join(subject.split())))[:MAX_SUBJECT]
    return add_alert(installation.database_url(), tenant, event, line, json.dumps(_within_bounds(facts)))


def _within_bounds(facts: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    length = 0
    for name, value in facts.items():
        length += len(json.dumps({name: value}, allow_nan=False))
        if length > MAX_FACTS:
            return {**kept, "more": len(facts) - len(kept)}
        kept[name] = value
    return kept
