"""From champions to what is served."""

from typing import Any

import dagster as dg

from pipelines.defs.training.presentation import model_links
from pipelines.partitions import tenants
from pipelines.presentation import SUMMARY, table
from pipelines.resources import Installation


@dg.asset(group_name="publishing", partitions_def=tenants, kinds={"bentoml"}, ins={"champions": dg.AssetIn()})
def release(
    installation: dg.ResourceParam[Installation], feature_snapshot: dict[str, Any], champions: dict[str, Any]
) -> dg.MaterializeResult[dict[str, Any]]:
    """The tenant's champions and item table as one immutable BentoML model, which serving picks up by itself."""
    from pipelines.defs.publishing.steps import drop_earlier_work, publish_champions  # loads BentoML and MLflow
    from pipelines.defs.training.steps import TrainingRun

    run = TrainingRun.on(installation, feature_snapshot)
    published = publish_champions(run)
    drop_earlier_work(run)
    return dg.MaterializeResult(
        value={"release": published.release},
        metadata={
            SUMMARY: f"release {published.release} with {', '.join(published.champions)}",
            "release": published.release,
            "catalogue_version": run.manifest.catalogue_version,
            "items": run.manifest.n_items,
            "snapshot": run.manifest.snapshot_id,
            "members": table(
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
            "left_out": ", ".join(published.left_out) or "none",
            "folder": dg.MetadataValue.path(installation.paths.bentoml / "models" / f"release-{run.tenant}"),
        },
    )
