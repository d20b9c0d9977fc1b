"""docs/latency.md out of what a run found, beside the figures of before."""

import json
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import psutil
import yaml

from tests.benchmarks.processor_time import PROGRAMS
from tests.fixtures.platform import ROOT

HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "latency.md"
TEMPLATE = HERE / "page.md"
BEFORE = HERE / "before.json"
"""A run of this benchmark on the commit before the work on latency."""
TARGETS = HERE / "targets.yaml"
FIGURES = {"cpu_ms": "processor ms a request", "p50_ms": "p50, ms", "p99_ms": "p99, ms"}
SHOWN = ("requests_per_second", "p50_ms", "p99_ms")
TITLES = {
    "computed": "hybrid, every query new",
    "complete-journey": "complete-journey, hybrid",
    "fresh hybrid": "fresh histories, hybrid",
    "fresh deep-learning": "fresh histories, deep-learning",
    "release": "first request of a user after a swap, hybrid",
    "noop": "bare FastAPI no-op",
    "naive_peer": "naive peer: FastAPI and `implicit`",
}


def verdicts(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target with what was measured, and whether it is met. Those of rows that were not measured are left out."""
    found = []
    for target in yaml.safe_load(TARGETS.read_text()):
        value = figure(result, target["row"], target["clients"], target["figure"])
        if value is not None:
            found.append({**target, "measured": value, "met": value <= target["must"]})
    return found


def figure(result: dict[str, Any], row: str, clients: int, name: str) -> float | None:
    """A figure of a row; None where it was not measured. Of processor time, the total."""
    for each in result["rows"]:
        if (each["row"], each["clients"]) == (row, clients):
            value = each[name]
            return float(value["total"] if isinstance(value, dict) else value)
    return None


def render(result: dict[str, Any]) -> str:
    """The page."""
    before = json.loads(BEFORE.read_text())
    return Template(TEMPLATE.read_text()).substitute(
        date=result["date"],
        commit=result["commit"],
        command=result["command"],
        machine=_conditions(result),
        generator=result["generator"],
        seconds=f"{result['seconds']:g}",
        rounds=result["rounds"],
        catalogues="\n".join(
            f"| {each['tenant']} | {each['items']:,} | {each['users']:,} | {each['interactions']:,} |"
            for each in result["catalogues"]
        ),
        before_date=before["date"],
        before_commit=before["commit"],
        before_machine=_conditions(before),
        targets="\n".join(_targets(result, before)),
        programs="\n".join(_programs(result, before)),
        throughput="\n".join(_throughput(result, before)),
        failures=_failures(result),
    )


def machine() -> str:
    """Cores, their model, memory, and how busy they were in the last minute."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores of {cpu}, {memory:.0f} GB, load average {psutil.getloadavg()[0]:.1f}"


def commit() -> str:
    """The short id of the commit that is checked out, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _conditions(result: dict[str, Any]) -> str:
    return f"{result['machine']}; {result['note']}" if result.get("note") else str(result["machine"])


def _targets(result: dict[str, Any], before: dict[str, Any]) -> Iterator[str]:
    for verdict in verdicts(result):
        row, clients, name = verdict["row"], verdict["clients"], verdict["figure"]
        earlier = figure(before, row, clients, name)
        title = f"{TITLES.get(row, row)}, {clients} client{'s' if clients > 1 else ''}: {FIGURES[name]}"
        values = (verdict.get("now"), earlier, verdict["measured"], verdict["must"], verdict["aim"])
        cells = " | ".join("-" if value is None else f"{value:g}" for value in values)
        yield f"| {title} | {cells} | {'yes' if verdict['met'] else 'no'} |"


def _programs(result: dict[str, Any], before: dict[str, Any]) -> Iterator[str]:
    for row in result["rows"]:
        if "cpu_ms" not in row:
            continue
        cells = []
        for run in (before, result):
            found = [each for each in run["rows"] if (each["row"], each["clients"]) == (row["row"], row["clients"])]
            spent = found[0]["cpu_ms"] if found else None
            cells.append(" + ".join(f"{spent[each]:.2f}" for each in PROGRAMS) if spent else "-")
            cells.append(f"{spent['total']:.2f}" if spent else "-")
        yield f"| {TITLES.get(row['row'], row['row'])} | {row['clients']} | {' | '.join(cells)} |"


def _throughput(result: dict[str, Any], before: dict[str, Any]) -> Iterator[str]:
    noop = {id(run): figure(run, "noop", 32, "requests_per_second") for run in (before, result)}
    for row in result["rows"]:
        cells = []
        for run in (before, result):
            each = {
                name: figure(run, row["row"], row["clients"], name)
                for name in ("requests_per_second", "p50_ms", "p99_ms")
            }
            cells += ["-" if value is None else f"{value:g}" for value in each.values()]
            rate, bare = each["requests_per_second"], noop[id(run)]
            cells.append(f"{rate / bare:.3f}" if rate and bare and row["clients"] == 32 else "")
        yield f"| {TITLES.get(row['row'], row['row'])} | {row['clients']} | {' | '.join(cells)} |"


def _failures(result: dict[str, Any]) -> str:
    answered = sum(row["requests"] for row in result["rows"])
    differing = "; ".join(result["differing"]) or "none"
    return (
        f"Of {answered:,} answers, {result['errors']:,} failed and {result['degraded']:,} were degraded. "
        f"Answers of fresh histories that differ from uncached ones: {differing}."
    )
