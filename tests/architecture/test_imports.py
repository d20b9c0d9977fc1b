"""Imports go one way. Every import in every package, also those inside functions, is held against one table."""

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("configs", "feature_store", "training", "serving", "pipelines", "api")

# A unit is a package, or a part of one that the rules tell apart. The longest matching prefix names a module's unit.
UNITS = (
    *PACKAGES,
    "feature_store.columns",
    "feature_store.schemas",
    "feature_store.interaction_types",
    "feature_store.attribution",
    "feature_store.table_files",
    "feature_store.online",
    "feature_store.metadata",
    "feature_store.loaders",
    "configs.local",
    "serving.contracts",
    "serving.client",
    "serving.transport",
    "serving.connections",
    "serving.reachability",
    "serving.tenant_health",
    "serving.ranking",
    "serving.explanations",
    "serving.predictor",
    "serving.release",
    "serving.service",
)

_FEATURES = {
    "feature_store",
    "feature_store.columns",
    "feature_store.schemas",
    "feature_store.interaction_types",
    "feature_store.online",
}
_SCORING = {"configs", *_FEATURES, "training", "serving.contracts", "serving"}
_PREDICTION = {*_SCORING, "serving.ranking", "serving.explanations"}
ALLOWED: dict[str, set[str]] = {
    "configs": set(),
    "configs.local": {"configs"},
    "feature_store.metadata": set(),
    "feature_store.loaders": {
        "configs",
        "feature_store.columns",
        "feature_store.schemas",
        "feature_store.interaction_types",
        "feature_store.metadata",
    },
    "feature_store.columns": {"configs"},
    "feature_store.schemas": {"configs", "feature_store.columns"},
    "feature_store.interaction_types": {"feature_store.columns"},
    "feature_store.attribution": set(),
    "feature_store.table_files": {"configs", "feature_store", "feature_store.schemas"},
    "feature_store.online": {"configs", "feature_store.columns", "feature_store.interaction_types"},
    "feature_store": {"configs", "feature_store.attribution", "feature_store.table_files", *_FEATURES},
    "training": {"configs", *_FEATURES},
    "serving.contracts": {"configs"},
    "serving.client": {
        "configs",
        "serving.contracts",
        "serving.reachability",
        "serving.tenant_health",
        "serving.transport",
    },
    "serving.reachability": {"serving.contracts"},
    "serving.tenant_health": set(),
    "serving.transport": {"configs", "serving.contracts", "serving.connections"},
    "serving.connections": set(),
    "serving.ranking": _SCORING,
    "serving.explanations": _SCORING,
    "serving.predictor": _PREDICTION,
    "serving.release": {*_PREDICTION, "serving.predictor"},
    "serving.service": {*_PREDICTION, "serving.predictor", "serving.release"},
    "serving": {*_PREDICTION, "serving.predictor", "serving.release"},  # the rest: overlay, filtering, watch, __main__
    "pipelines": {
        *_PREDICTION,
        "feature_store.table_files",
        "serving.predictor",
        "serving.release",
        "serving.service",
    },
    "api": {
        "configs",
        "configs.local",
        "feature_store.loaders",
        "feature_store.metadata",
        "feature_store.columns",
        "feature_store.schemas",
        "feature_store.interaction_types",
        "feature_store.attribution",
        "feature_store.table_files",
        "feature_store.online",
        "serving.contracts",
        "serving.client",
    },
}

# A framework lives in its own room.
HOMES = {
    "fastapi": ("api",),
    "starlette": ("api", "pipelines"),
    "stripe": ("api",),
    "strawberry": ("api",),
    "slowapi": ("api",),
    "sqlmodel": ("api",),
    "dagster": ("pipelines",),
    "bentoml": ("serving.service", "serving.release"),
    "mlflow": ("training.tracking",),
    "torchrec": ("training.models",),
    "ray": ("pipelines.compute",),
}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path) -> set[str]:
    """Full names of what a module imports; `from a import b` counts as a.b where that is a module of ours."""
    known = modules()
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            base = node.module or ""
            if node.level:
                prefix = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*prefix, *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in known else base)
    return found


def unit_of(module: str) -> str:
    return max((unit for unit in UNITS if module == unit or module.startswith(f"{unit}.")), key=len)


MODULES = modules()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_imports_only_what_the_table_allows(name: str) -> None:
    own = unit_of(name)
    wrong = []
    for imported in imports_of(name, MODULES[name]):
        top = imported.partition(".")[0]
        if top in PACKAGES and (unit := unit_of(imported)) != own and unit not in ALLOWED[own]:
            wrong.append(imported)
        homes = HOMES.get(top)
        if homes and not any(name == home or name.startswith(f"{home}.") for home in homes):
            wrong.append(imported)
    assert not wrong, f"{name} may not import {wrong}"


def test_table_has_no_cycle_between_packages() -> None:
    assert set(ALLOWED) == set(UNITS)
    assert not ALLOWED["api"] & {"pipelines", "training"}
    assert "api" not in ALLOWED["pipelines"]
    order = ("configs", "feature_store", "training", "serving.predictor", "serving.release", "pipelines")
    for position, unit in enumerate(order):
        assert not ALLOWED[unit] & set(order[position + 1 :]), f"{unit} imports against the order"


def test_every_init_module_is_empty() -> None:
    written = [name for name, path in MODULES.items() if path.name == "__init__.py" and path.read_text().strip()]
    # Every logged model in MLflow names training.tracking as the module that loads it.
    assert written == ["training.tracking"]


def test_torchrec_is_imported_by_who_trains_with_it_only() -> None:
    importers = [
        name
        for name, path in MODULES.items()
        if any(imported.partition(".")[0] == "torchrec" for imported in imports_of(name, path))
    ]
    assert {name.rpartition(".")[2] for name in importers} == {"task", "sharding"}, importers


FOR_A_FRESH_INTERPRETER = {
    "api.app": {"torch", "torchrec", "mlflow", "dagster", "bentoml", "duckdb"},
    "serving.client": {"torch", "mlflow", "dagster", "bentoml"},
    "serving.predictor": {"torchrec", "mlflow", "dagster", "bentoml"},
    "pipelines.definitions": {"torchrec", "fastapi.applications", "stripe", "ray"},
}
"""What a module does not load. One interpreter may import several in this order, each of which loads more."""

IMPORT = """
import importlib, json, sys
from pathlib import Path
checked, by_package = json.loads(sys.argv[1])
loaded, made = {}, {package: [] for package in by_package}
def load(name):
    before = set(Path.cwd().rglob("*"))
    importlib.import_module(name)
    new = set(Path.cwd().rglob("*")) - before
    made[name.partition(".")[0]] += [str(path.relative_to(Path.cwd())) for path in new]
for name, absent in checked.items():
    load(name)
    loaded[name] = sorted(set(absent) & set(sys.modules))
for package, names in by_package.items():
    for name in names:
        load(name)
print(json.dumps([loaded, made]))
"""


@dataclass(frozen=True)
class Imported:
    """What importing all modules does."""

    loaded: dict[str, list[str]]  # by module of `FOR_A_FRESH_INTERPRETER`: what it must not load and did
    made: dict[str, list[str]]  # files and folders that appear, by package


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """Of two interpreters: the API's first module leaves the rest of the checks to one that has not loaded it."""
    # These run inside their framework: a service's and a migration's module is a program, not a library.
    names = [name for name in MODULES if not name.endswith("__main__") and ".migrations" not in name]
    names = [name for name in names if name not in {"serving.service", "api.asgi"}]
    by_package = {package: [name for name in names if name.partition(".")[0] == package] for package in PACKAGES}
    checked = {name: sorted(absent) for name, absent in FOR_A_FRESH_INTERPRETER.items()}
    first = {"api.app": checked.pop("api.app")}
    loaded, _ = _import(tmp_path_factory.mktemp("api"), first, {"api": []})
    rest, made = _import(tmp_path_factory.mktemp("all"), checked, by_package)
    return Imported(loaded | rest, made)


def _import(folder: Path, checked: dict[str, list[str]], by_package: dict[str, list[str]]) -> list[Any]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", IMPORT, json.dumps([checked, by_package])]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=600
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.service
@pytest.mark.parametrize("module", FOR_A_FRESH_INTERPRETER)
def test_fresh_interpreter_does_not_load(module: str, imported: Imported) -> None:
    assert imported.loaded[module] == []


@pytest.mark.service
@pytest.mark.parametrize("package", PACKAGES)
def test_importing_every_module_makes_nothing_on_disk(package: str, imported: Imported) -> None:
    """No module connects, makes folders or reads a required setting on import."""
    made = [Path(path) for path in imported.made[package]]
    # Frameworks' own caches under HOME are theirs.
    assert not [path for path in made if not path.parts[0].startswith(".") and path.parts[0] != "bentoml"]
