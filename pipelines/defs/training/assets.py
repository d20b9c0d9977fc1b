"""From a feature snapshot to champions: one asset per model family, their comparison, and the decision.

The steps are imported where they run: they load MLflow and the models' libraries, which Dagster's UI, sensors and
schedules do without.
"""

from typing import Any

import dagster as dg
from pydantic import TypeAdapter

from pipelines.defs.training.families import asset_name, base_models_of, configuration_key, searchable_families
from pipelines.defs.training.planning import PLAN, training_plan
from pipelines.defs.training.presentation import comparison, curves, model_links
from pipelines.defs.training.promotion_metadata import promotion_metadata
from pipelines.partitions import tenants
from pipelines.presentation import SUMMARY, interval_plot, table
from pipelines.resources import Installation
from training.evaluation.champion_comparison import ChampionComparison
from training.evaluation.promotion import IncomparableChampion, PromotionVerdict
from training.evaluation.report import EvaluationReport
from training.models.registry import families, is_ensemble

_CHAMPION: TypeAdapter[ChampionComparison | IncomparableChampion | None] = TypeAdapter(
    ChampionComparison | IncomparableChampion | None
)
"""Reads what the asset `evaluation` wrote about a champion."""


def training_assets() -> list[dg.AssetsDefinition]:
    """What is trained on, the assets of every family in the registry, and what compares them."""
    names = families()
    trained = [_family_asset(family) for family in names]
    return [training_plan, *trained, _evaluation_asset(names), _champions_asset(names)]


def _family_asset(family: str) -> dg.AssetsDefinition:
    base_models = base_models_of(family)
    kind = "a learned ensemble of " + ", ".join(base_models) if is_ensemble(family) else "trained on the snapshot"

    @dg.asset(
        name=asset_name(family),
        description=f"The newest {family} model: {kind}, evaluated on its last days and registered in MLflow.",
        group_name="training",
        partitions_def=tenants,
        kinds={"mlflow"},
        ins={"feature_snapshot": dg.AssetIn(PLAN), **{asset_name(name): dg.AssetIn() for name in base_models}},
        deps=[configuration_key(family)] if family in searchable_families() else [],
    )
    def trained(
        context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation], **inputs: dict[str, Any]
    ) -> dg.MaterializeResult[dict[str, Any]]:
        from pipelines.defs.training import steps
        from pipelines.defs.training.configurations import chosen_configuration
        from training.memory_limit import InsufficientMemoryError

        run = steps.TrainingRun.on(installation, inputs["feature_snapshot"])
        versions = {name: inputs[asset_name(name)]["version"] for name in base_models}
        chosen = chosen_configuration(run, family)
        tags = {"dagster_run": context.run.run_id, "configuration": chosen.source}
        try:
            model, ref = steps.train(run, family, versions, tags, chosen.config)
        except InsufficientMemoryError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        found = steps.figures(model.report)
        return dg.MaterializeResult(
            value={
                "family": family,
                "version": ref.version,
                "run_id": ref.run_id,
                "snapshot": run.manifest.snapshot_id,
                "profile": chosen.profile_values(),
            },
            metadata={
                SUMMARY: f"ndcg@10 {found.get('ndcg@10', float('nan')):.3f} of {found['users']} users, "
                f"version {ref.version}",
                **{name.replace("@", "_at_"): value for name, value in found.items()},
                "fit_seconds": model.usage.seconds,
                "peak_mb": model.usage.peak_mb,
                "protocol": dg.MetadataValue.text(model.report.protocol),
                "hyper_parameters_from": chosen.source,
                "hyper_parameters": dg.MetadataValue.json(model.config.model_dump(mode="json")),
                **model_links(run.tracking, ref),
                **curves(model),
            },
        )

    return trained


def _evaluation_asset(names: tuple[str, ...]) -> dg.AssetsDefinition:
    @dg.asset(
        name="evaluation",
        group_name="training",
        partitions_def=tenants,
        ins={"feature_snapshot": dg.AssetIn(PLAN), **{asset_name(name): dg.AssetIn() for name in names}},
    )
    def evaluation(
        installation: dg.ResourceParam[Installation], **inputs: dict[str, Any]
    ) -> dg.MaterializeResult[dict[str, Any]]:
        """Every family beside the baselines and the champions, on one window under one protocol."""
        from pipelines.defs.training import champions as comparing
        from pipelines.defs.training import steps

        run = steps.TrainingRun.on(installation, inputs["feature_snapshot"])
        reports = {name: steps.report_of(run, name) for name in names}
        champions = {name: comparing.champion_on_window(run, name, report) for name, report in reports.items()}
        shown = {name: steps.figures(report) for name, report in reports.items()}
        best = max(shown, key=lambda name: shown[name].get("ndcg@10", 0.0))
        return dg.MaterializeResult(
            value={
                "reports": {name: report.model_dump(mode="json") for name, report in reports.items()},
                "champions": {
                    name: None if champion is None else champion.model_dump(mode="json")
                    for name, champion in champions.items()
                },
            },
            metadata={
                SUMMARY: f"best ndcg@10 is {shown[best].get('ndcg@10', float('nan')):.3f}, of {best}",
                "best_ndcg_at_10": shown[best].get("ndcg@10", 0.0),
                "comparison": table(comparison(reports.values())),
                "ndcg_at_10": _ndcg_plot(reports, {name: found["segment"] for name, found in shown.items()}),
                "champions_on_this_window": table(
                    [{"family": name, **_champion_row(champion)} for name, champion in champions.items()]
                ),
                "protocol": next(iter(reports.values())).protocol,
                "split": next(iter(reports.values())).split_hash,
            },
        )

    return evaluation


def _champions_asset(names: tuple[str, ...]) -> dg.AssetsDefinition:
    @dg.asset(
        name="champions",
        group_name="training",
        partitions_def=tenants,
        kinds={"mlflow"},
        ins={
            "feature_snapshot": dg.AssetIn(PLAN),
            "evaluation": dg.AssetIn(),
            **{asset_name(name): dg.AssetIn() for name in names},
        },
    )
    def champions(
        installation: dg.ResourceParam[Installation], **inputs: dict[str, Any]
    ) -> dg.MaterializeResult[dict[str, Any]]:
        """The version of every family that serves; a new one replaces it unless it is worse or breaks a guard rail."""
        from pipelines.defs.training import steps
        from pipelines.defs.training.champions import promote

        run = steps.TrainingRun.on(installation, inputs["feature_snapshot"])
        found = inputs["evaluation"]
        reports = promote(
            run,
            {name: inputs[asset_name(name)]["version"] for name in names},
            {name: EvaluationReport.model_validate(report) for name, report in found["reports"].items()},
            {name: _CHAMPION.validate_python(champion) for name, champion in found["champions"].items()},
        )
        refs = {name: run.tracking.champion(run.tenant, name) for name in names}
        serving = {name: None if ref is None else ref.version for name, ref in refs.items()}
        return dg.MaterializeResult(
            value={
                name: {
                    "promoted": report.promoted,
                    "blocked": report.verdict is PromotionVerdict.BLOCKED,
                    "verdict": report.verdict.value,
                    "reason": report.reason,
                }
                for name, report in reports.items()
            },
            metadata=promotion_metadata(reports, serving),
        )

    return champions


def _champion_row(champion: ChampionComparison | IncomparableChampion | None) -> dict[str, Any]:
    """What the table of champions says of one family."""
    from pipelines.defs.training import steps

    if isinstance(champion, IncomparableChampion):
        return {"champion": True, "cannot_be_compared": f"{champion.version}: {champion.reason}"}
    return {"champion": champion is not None, **({} if champion is None else steps.figures(champion.report))}


def _ndcg_plot(reports: dict[str, EvaluationReport], segments: dict[str, str]) -> dg.MetadataValue:
    rows = [
        (name, result.metrics["ndcg@10"])
        for name, report in reports.items()
        for result in report.results
        if result.segment == segments[name] and result.model == name and "ndcg@10" in result.metrics
    ]
    return interval_plot(
        [name for name, _ in rows],
        [each.mean for _, each in rows],
        [each.mean if each.low is None else each.low for _, each in rows],
        [each.mean if each.high is None else each.high for _, each in rows],
        xlabel="NDCG@10 with its 95 % interval",
    )
