"""The written card of a version: what it is, the data, the protocol, figures with intervals, limits, how to load it.

MLflow shows a description as Markdown. The texts in it are of this package, of tenants' ids and of numbers; what may
hold a name of a tenant's metadata field is shown as code.
"""

from collections.abc import Mapping

from configs.escaping import markdown_code
from training.evaluation.intervals import Estimate
from training.evaluation.report import RANDOM, EvaluationReport
from training.models.contract import Recommender
from training.models.registry import family_class
from training.train import TrainedModel

MAX_CHARACTERS = 4_900
"""MLflow's registry keeps at most 5,000."""
_COLUMNS = ("ndcg@10", "recall@10", "auc", "coverage@10")
_FEW_USERS = 200
"""Below this, intervals are so wide that two models are seldom told apart."""


def version_card(
    trained: TrainedModel, tenant_id: str, version: str, base_models: Mapping[str, str], code_version: str
) -> str:
    """Markdown for the description of a version.

    Args:
        trained: what was registered.
        tenant_id: whose model it is.
        version: its number.
        base_models: registered versions of an ensemble's base models, by family.
        code_version: hash of the code that trained it.
    """
    family, report = trained.family, trained.report
    parts = [
        f"## {family} of {tenant_id}, version {version}",
        _about(type(trained.evaluated)),
        f"**Data.** {_data(trained)}",
        f"**Protocol.** {report.protocol[0].upper()}{report.protocol[1:]}.",
        "**Figures**, with 95 % intervals over users:",
        _figures(report),
        "**Limits**",
        "\n".join(f"- {limit}" for limit in _limits(trained)),
        "**Load it**",
        _how_to_load(tenant_id, family, version),
        f"**Made by** {_made_by(trained, base_models, code_version)}",
    ]
    return shortened_card("\n\n".join(parts))


def family_card(tenant_id: str, name: str) -> str:
    """Markdown for the description of a registered model, which holds all versions of a tenant's family."""
    return shortened_card(
        f"## {name} of {tenant_id}\n\n{_about(family_class(name))}\n\n"
        "Each version is one training on one snapshot of the tenant's data; its description is its card. The version "
        "with the alias `champion` serves. The promotion rule moves that alias after each training, and a person may: "
        f"`python -m pipelines promote --tenant {tenant_id} --family {name} --version N --reason '...'`.\n\n"
        f"{_how_to_load(tenant_id, name, 'N')}"
    )


def shortened_card(text: str) -> str:
    """The text, cut at the end of a line where it is longer than MLflow keeps."""
    if len(text) <= MAX_CHARACTERS:
        return text
    kept = text[: MAX_CHARACTERS - 2].rpartition("\n")[0]
    return f"{kept}\n…"


def _about(family: type[Recommender]) -> str:
    """The first paragraph of the class, which says how the family scores."""
    first = (family.__doc__ or "").strip().partition("\n\n")[0]
    return " ".join(first.split()).replace("*", r"\*")  # formulas hold asterisks, which Markdown would pair


def _data(trained: TrainedModel) -> str:
    snapshot = f"snapshot {markdown_code(trained.report.snapshot_id or 'unnamed')}"
    if trained.diagnostics is None:
        return f"{snapshot[0].upper()}{snapshot[1:]}."
    data = trained.diagnostics.data
    days = f", {data.first_day} to {data.last_day}" if data.first_day else ""
    return (
        f"{data.events:,} interactions of {data.users:,} users with {data.items:,} items{days} ({snapshot}). "
        f"The test window holds {data.evaluated_users:,} users. Users are positions: no id of a user is in the model."
    )


def _figures(report: EvaluationReport) -> str:
    """A table with a row for each segment, and one for the random order of the first."""
    rows = [result for result in report.results if result.model == report.family]
    if not rows:
        return "*The test window is empty, so nothing was measured.*"
    rows += [result for result in report.results if result.model == RANDOM][:1]
    lines = ["| segment | users | " + " | ".join(_COLUMNS) + " |", "|" + " --- |" * (len(_COLUMNS) + 2)]
    for result in rows:
        name = result.segment if result.model == report.family else f"{result.segment}, in random order"
        cells = (_estimate(result.metrics.get(metric)) for metric in _COLUMNS)
        lines.append(f"| {name} | {result.n_users:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _estimate(found: Estimate | None) -> str:
    if found is None:
        return ""
    return f"{found.mean:.4f}" + ("" if found.low is None else f" ({found.low:.4f} to {found.high:.4f})")


def _limits(trained: TrainedModel) -> list[str]:
    report, family = trained.report, trained.family
    limits = [
        "The figures are of the same procedure fitted before the test window. The served model has learned from the "
        "window, so it cannot be measured on it.",
        "What users chose was also shaped by what they were shown then. Online accuracy is measured apart.",
        "A score says how an item ranks within this version; scores of two versions cannot be compared.",
    ]
    users = report.n_users()
    if users < _FEW_USERS:
        limits.append(f"Only {users:,} users were evaluated: the intervals are wide, and a difference may be chance.")
    if report.n_users("cold_users") == 0:
        limits.append("No user of the window was new, so nothing is known of its lists for new users.")
    cold = report.estimate("recall@10", "cold_items")
    if cold is None:
        limits.append("No item of the window was new, so nothing is known of how it ranks new items.")
    elif cold.mean == 0:
        limits.append("It found none of the items that were new in the window.")
    if report.notes.get("stopped") == "time":
        limits.append("The fit ran out of its time, so a longer one may be better.")
    if kept := report.notes.get("kept_base_model"):
        limits.append(f"No ensemble was shown to be better, so {markdown_code(kept)} serves alone under {family}.")
    return limits


def _how_to_load(tenant_id: str, family: str, version: str) -> str:
    return (
        "```python\nimport mlflow\n\n"
        f'model = mlflow.pyfunc.load_model("models:/{tenant_id}.{family}/{version}")\n'
        "model.metadata.signature  # one history a row, items by position\n```"
    )


def _made_by(trained: TrainedModel, base_models: Mapping[str, str], code_version: str) -> str:
    words = [f"code {markdown_code(code_version)}, seed {trained.seed}"]
    words.append(f"{trained.usage.seconds:,.1f} s and {trained.usage.peak_mb:,.0f} MB for all fits")
    if base_models:
        words.append("over " + ", ".join(f"{name} version {number}" for name, number in sorted(base_models.items())))
    return "; ".join(words) + ". The run holds every hyper-parameter, and `evaluation.json` every figure."
