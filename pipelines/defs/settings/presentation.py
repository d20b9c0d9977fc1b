"""The settings of a tenant's pipeline as rows of a table."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from configs.pipelines import PipelineSettings
from configs.tenant_pipeline import SettingsGroup, TenantPipeline
from pipelines.presentation import Cell

OF_INSTALLATION = {"training.retrainAfter": "retrain_after", "training.seconds": "train_seconds"}
"""Settings that have the installation's value where the tenant has set none."""


def setting_rows(settings: TenantPipeline, installation: PipelineSettings) -> list[dict[str, Cell]]:
    """Each setting with the value in force, and where that is from: `tenant`, `default` or `installation`.

    Of a webhook only the host is shown, because its path may hold a token; of mails only how many addresses there are.
    """
    rows: list[dict[str, Cell]] = []
    for path, value, default in _leaves(settings, TenantPipeline()):
        if value is None and path in OF_INSTALLATION:
            row = {"value": getattr(installation, OF_INSTALLATION[path]), "from": "installation"}
        else:
            row = {"value": _shown(path, value), "from": "default" if value == default else "tenant"}
        rows.append({"setting": path, **row})
    return rows


def _leaves(group: SettingsGroup, defaults: SettingsGroup, within: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, value and default of each setting."""
    for name, field in type(group).model_fields.items():
        if field.exclude:
            continue
        value, default, path = getattr(group, name), getattr(defaults, name), f"{within}{field.alias}"
        if isinstance(value, SettingsGroup):
            yield from _leaves(value, default, f"{path}.")
        else:
            yield path, value, default


def _shown(path: str, value: Any) -> Cell:
    if path == "alerts.webhookUrl":
        return "none" if value is None else str(urlsplit(value).hostname)
    if path == "alerts.emails":
        return len(value)
    if isinstance(value, dict):
        return json.dumps({name: floor.model_dump(by_alias=True) for name, floor in value.items()}) if value else "none"
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return "none" if value is None else value
