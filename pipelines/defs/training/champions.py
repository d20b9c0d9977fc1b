"""What the assets `evaluation` and `champions` do, without Dagster: compare challengers with champions, and promote."""

from collections.abc import Mapping

import pandas as pd

from pipelines.alerts import send_alert
from pipelines.defs.training.families import base_models_of
from pipelines.defs.training.steps import COST_FILE, POSITIONS_TAG, VALUES_FILE, TrainingRun
from pipelines.resources import Installation
from pipelines.tenant_settings import tenant_settings
from training.evaluation.champion_comparison import ChampionComparison, ServingCost, paired_figures
from training.evaluation.promotion import IncomparableChampion, PromotionPolicy, chosen, decide, held, load_policy
from training.evaluation.promotion_report import PromotionReport
from training.evaluation.report import EvaluationReport
from training.evaluation.stored_config import UnreadableConfig
from training.evaluation.user_values import UserValues
from training.models.contract import ModelConfig
from training.tracking.versions import ModelRef, UnreadableReportError
from training.train import EvaluatedModel, evaluate_family


def policy_of(installation: Installation, tenant: str) -> PromotionPolicy:
    """The promotion policy, with what the tenant has set."""
    return load_policy().with_settings(tenant_settings(installation, tenant).promotion)


def champion_on_window(
    run: TrainingRun, family: str, challenger: EvaluationReport
) -> ChampionComparison | IncomparableChampion | None:
    """The champion's configuration beside the challenger, on its users; None where the family never had a champion.

    The configuration is fitted again, before the same window as the challenger. A champion with the challenger's
    configuration ties with it, because the same fit would give the same model. Where the champion cannot be measured,
    the reason is returned in its place, so that nothing is promoted without a comparison.
    """
    champion = run.tracking.champion(run.tenant, family)
    if champion is None:
        earlier = run.tracking.last_promoted(run.tenant, family)
        if earlier is None:
            return None
        return IncomparableChampion(version=earlier, reason="the alias `champion` was removed")
    version = f"version {champion.version}"
    values = UserValues.load(run.folder(family) / VALUES_FILE)
    try:
        config = _config_of(run, champion)
        if config == challenger.config:
            report, others = challenger, values
        else:
            found = _fit_on_window(run, family, config)
            report, others = found.report, UserValues.of(run.data()[1], found.rankings)
    except _NotComparableError as error:
        return IncomparableChampion(version=version, reason=str(error))
    return ChampionComparison(
        version=version,
        report=report,
        same_configuration=report is challenger,
        figures=paired_figures(values, others),
    )


class _NotComparableError(Exception):
    """Why a champion cannot be measured on today's window."""


def _config_of(run: TrainingRun, champion: ModelRef) -> ModelConfig:
    try:
        config = run.tracking.report(champion).config
    except UnreadableReportError as error:
        raise _NotComparableError(str(error)) from error
    if config is None:
        raise _NotComparableError("its report holds no configuration")
    if isinstance(config, UnreadableConfig):
        raise _NotComparableError(config.reason)
    return config


def _fit_on_window(run: TrainingRun, family: str, config: ModelConfig) -> EvaluatedModel:
    _, split = run.data()
    base_models = {name: run.load(name) for name in base_models_of(family)}
    try:
        return evaluate_family(family, split, options=run.options, config=config, base_models=base_models)
    except (ValueError, MemoryError) as error:
        raise _NotComparableError(
            f"its configuration cannot be fitted on this data: {error or type(error).__name__}"
        ) from error


def servable(run: TrainingRun, ref: ModelRef) -> bool:
    """Whether a version was trained with the item positions of this snapshot; no other can be served with its items."""
    tags: dict[str, str] = run.tracking.client.get_run(ref.run_id).data.tags
    return tags.get(POSITIONS_TAG) == run.manifest.positions_id


def promote(
    run: TrainingRun,
    versions: Mapping[str, str],
    reports: Mapping[str, EvaluationReport],
    champions: Mapping[str, ChampionComparison | IncomparableChampion | None],
) -> dict[str, PromotionReport]:
    """Apply the promotion rule to every family's new version, log the reports, and move the aliases.

    Args:
        versions: the challengers' registered versions, by family.
        reports: the challengers' reports, by family.
        champions: what `champion_on_window` found of each family.
    """
    policy, tracking = policy_of(run.installation, run.tenant), run.tracking
    decided = {}
    for family, version in versions.items():
        ref = tracking.version(run.tenant, family, version)
        others = {name: report for name, report in reports.items() if name != family}
        cost = _cost_of(run, family)
        decision = decide(reports[family], champions[family], others, policy.floor(family), policy, cost)
        aliases = tracking.model_aliases(ref.name)
        # A person may have moved the alias while the models were trained.
        hold = None if aliases is None else tracking.notice_move(aliases).hold
        if hold is not None:
            refit = run.tracking.version(run.tenant, family, hold.refit_of) if hold.refit_of else None
            if refit is not None and run.tracking.report(refit).config == reports[family].config:
                decision = chosen(hold.by, hold.since, f"the configuration of version {refit.version}, fitted again")
                tracking.refitted(ref.name)
            else:
                decision = held(decision, hold.by, hold.since)
        now = pd.Timestamp.now("UTC").isoformat(timespec="seconds")
        report = PromotionReport.of(decision, version, reports[family], champions[family], policy, cost, now)
        tracking.record_promotion(ref, report)
        decided[family] = report
    if promoted := {family: report for family, report in decided.items() if report.promoted}:
        subject = f"New versions become champions: {', '.join(promoted)}"
        facts = {family: {"version": each.version, "reason": each.reason} for family, each in promoted.items()}
        send_alert(run.installation, run.tenant, "promotion", subject, facts)
    return decided


def _cost_of(run: TrainingRun, family: str) -> ServingCost | None:
    """What the training measured; None where its window had no query."""
    path = run.folder(family) / COST_FILE
    return ServingCost.model_validate_json(path.read_text()) if path.exists() else None
