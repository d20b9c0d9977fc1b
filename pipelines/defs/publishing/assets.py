"""Releases: the champions as one model that is served."""

from typing import Any

import dagster as dg

from pipelines.defs.monitoring.flag import DRIFT, refuse_while_stopped
from pipelines.defs.training.presentation import model_links
from pipelines.partitions import tenants
from pipelines.presentation import SUMMARY, table
from pipelines.resources import Installation


@dg.asset(
    group_name="publishing", partitions_def=tenants, kinds={"bentoml"}, deps=[DRIFT], ins={"champions": dg.AssetIn()}
)
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
    return dg.MaterializeResult(
        value={"release": published.release},
        metadata={
            SUMMARY: f"release {published.release} with {', '.join(published.champions)}",
            "release": published.release,
            "catalogue_version": run.manifest.catalogue_version,
            "items": run.manifest.n_items,
            "snapshot_id": run.manifest.snapshot_id,
            "models": table(
                [
                    {
                        "family": family,
                        "version": ref.version,
                        "reason": champions[family]["reason"],
                        "mlflow_run": str(model_links(run.tracking, ref)["mlflow_run"]),
                    }
                    for family, ref in published.champions.items()
                ]
            ),
            "families_without_champion": ", ".join(published.families_without_champion) or "none",
            "folder": dg.MetadataValue.path(installation.paths.bentoml / "models" / f"release-{run.tenant}"),
        },
    )
