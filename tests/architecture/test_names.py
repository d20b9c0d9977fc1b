"""One name, one meaning: a public class or function is defined once in the whole house."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("configs", "feature_store", "training", "serving", "pipelines", "api")

ENTRANCES = {"router", "cli", "__main__"}
"""Routes and commands are named after what users call; the use case behind one may have the same name."""
GRAPHQL = Path("api/graphql/schemas.py")
"""Its types have the names of the reference, as their REST twins do."""
ANYWHERE = {"main", "upgrade", "downgrade", "definitions"}
"""Names that a convention gives: every program, every migration and every area of the pipeline has its own."""


def definitions() -> dict[str, set[Path]]:
    found: dict[str, set[Path]] = defaultdict(set)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.stem in ENTRANCES or path.relative_to(ROOT) == GRAPHQL:
                continue
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    found[node.name].add(path.relative_to(ROOT))
    return found


def test_a_public_name_is_defined_once() -> None:
    twice = {
        name: sorted(map(str, paths))
        for name, paths in definitions().items()
        if not name.startswith("_") and name not in ANYWHERE and len(paths) > 1
    }
    assert not twice, f"names with two meanings: {twice}"
