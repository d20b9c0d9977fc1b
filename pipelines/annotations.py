"""What every asset shows in Dagster beside its own definition: who owns it, where its code is, how fresh it must be."""

import inspect
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from pipelines.resources import Installation

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "source"
"""The metadata entry with an asset's module and line, as a path in the repository."""
_DAILY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=2), warn_window=timedelta(hours=26))
FRESHNESS = dict.fromkeys(("lake_interactions", "lake_items", "feature_snapshot", "daily_activity", "drift"), _DAILY)
"""Assets that the nightly run makes for some tenant each day. Models have none, because a run that brings nothing new
trains none. Dagster judges an asset and not its partitions; each tenant's export is judged by the check `freshness`."""


def annotated(definitions: dg.Definitions, installation: Installation) -> dg.Definitions:
    """The same definitions, whose assets have owners, links to their code and freshness policies."""
    places = {key: place for asset in definitions.assets or () for key, place in _places(asset).items()}
    settings = installation.pipeline

    def annotate(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(
            owners=list(settings.owners),
            metadata={**spec.metadata, **_code(places.get(spec.key), settings.source_url)},
            freshness_policy=FRESHNESS.get(spec.key.to_user_string(), spec.freshness_policy),
        )

    with warnings.catch_warnings():
        # Mapping of specs and links to code may change with a minor version of Dagster, which the lock holds.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        return definitions.map_asset_specs(func=annotate)


def _places(asset: object) -> dict[dg.AssetKey, tuple[str, int]]:
    """The file in the repository and the line of the function that makes each asset. Plug-ins have none."""
    if not isinstance(asset, dg.AssetsDefinition):
        return {}
    compute: Any = asset.op.compute_fn
    function = getattr(compute, "decorated_fn", compute)
    file = Path(inspect.getsourcefile(function) or "").resolve()
    if not file.is_relative_to(ROOT):
        return {}
    place = file.relative_to(ROOT).as_posix(), inspect.getsourcelines(function)[1]
    return dict.fromkeys(asset.keys, place)


def _code(place: tuple[str, int] | None, source_url: str | None) -> dict[str, Any]:
    """Metadata that leads to the code. Without a known repository it is text: a link would name this machine's path."""
    if place is None:
        return {}
    file, line = place
    found: dict[str, Any] = {SOURCE: f"{file}:{line}"}
    if source_url is not None:
        link = dg.UrlCodeReference(url=f"{source_url.rstrip('/')}/{file}#L{line}", label=file)
        found["dagster/code_references"] = dg.CodeReferencesMetadataValue(code_references=[link])
    return found
