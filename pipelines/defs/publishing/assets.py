"""Releases: the champions as one model that is served."""

from typing import Any

import dagster as dg

from pipelines.defs.monitoring.flag import refuse_while_stopped
from pipelines.defs.training.presentation import model_links
from pipelines.partitions import tenants
from pipelines.presentation import SUMMARY, table
from pipelines.resources import Installation


# It does not depend on `drift`, whose errors would keep it from running: it reads the flag that `drift` has set.
@dg.asset(group_name="publishing", partitions_def=tenants, kinds={"bentoml"}, ins={"champions": dg.AssetIn()})
def release(
    installation: dg.ResourceParam[Installation], feature_snapshot: dict[str, Any], champions: dict[str, Any]
) -> dg.MaterializeResult[dict[str, Any]]:
    """The tenant's champions and item table as one immutable BentoML model, which the model server loads by itself."""
    from pipelines.defs.publishing.steps import delete_earlier_work, publish_champions  # loads BentoML and MLflow
    from pipelines.defs.training.steps import TrainingRun

    run = TrainingRun.on(installation, feature_snapshot)
    refuse_while_stopped(installation, run.tenant)
    published = publish_champions(run)
    delete_earlier_work(run)
    reasons = {family: decision["reason"] for family, decision in champions.items()}
    missing = [
        {"family": family, "reason": reasons.get(family, "the family has no asset in this run")}
        for family in published.families_without_champion
    ]
    if published.release is None:
        return dg.MaterializeResult(value={"release": None}, metadata=_nothing_published(published.serving, missing))
    return dg.MaterializeResult(
        value={"release": published.release},
        metadata={
            SUMMARY: f"release {published.release} with {', '.join(published.champions)}",
            "release": published.release,
            "catalogue_version": run.manifest.catalogue_version,
            "items": run.manifest.n_items,
            "families": len(published.champions),
            "snapshot_id": run.manifest.snapshot_id,
            "models": table(
                [
                    {
                        "family": family,
                        "version": ref.version,
                        "reason": reasons.get(family, ""),
                        "mlflow_run": str(model_links(run.tracking, ref)["mlflow_run"]),
                    }
                    for family, ref in published.champions.items()
                ]
            ),
            "families_without_champion": ", ".join(published.families_without_champion) or "none",
            "folder": dg.MetadataValue.path(installation.paths.bentoml / "models" / f"release-{run.tenant}"),
        },
    )


def _nothing_published(serving: str | None, missing: list[dict[str, str]]) -> dict[str, Any]:
    """What the asset shows where no family has a champion that can be served."""
    serves_on = "popular items answer requests" if serving is None else f"release {serving} serves on"
    return {
        SUMMARY: f"nothing published, because no family has a champion; {serves_on}",
        "release": "none",
        "serving": serving or "the fallback",
        "families_without_champion": table(missing),
    }
