"""Dashboard, alert rules and runbook name metrics that exist, and each other."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "observability"
KINDS = {"Counter", "Gauge", "Histogram", "GaugeMetricFamily", "CounterMetricFamily"}


def defined() -> set[str]:
    """The names under which Prometheus sees the metrics that the sources define."""
    found: set[str] = set()
    for package in ("api", "serving", "pipelines"):
        for source in (ROOT / package).rglob("*.py"):
            if "prometheus_client" not in (text := source.read_text(encoding="utf-8")):
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                    name = ast.literal_eval(node.args[0])
                    found |= (
                        {f"{name}_{part}" for part in ("bucket", "count", "sum")} if "Histo" in node.func.id else {name}
                    )
    return found


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [*(rule["expr"] for rule in rules()), *shown]


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_names_metrics_that_exist_and_closes_what_it_opens(expression: str) -> None:
    named = set(re.findall(r"\brecommendai_\w+", expression))
    assert named <= defined() and (named or expression.startswith("up"))
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)


def test_every_metric_is_shown() -> None:
    shown = {name for expression in expressions() for name in re.findall(r"\brecommendai_\w+", expression)}
    hidden = {name for name in defined() - shown if not name.endswith(("_count", "_sum", "_bucket"))}
    assert hidden == set()


def test_every_alert_has_its_section_in_the_runbook_and_no_section_is_without_one() -> None:
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in rules()]
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "warn")


def test_prometheus_scrapes_the_three_programs() -> None:
    document = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert [each["job_name"] for each in document["scrape_configs"]] == ["api", "model-server", "pipelines"]
    assert document["rule_files"] == ["alerts.yml"]
