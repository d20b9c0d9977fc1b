"""The registry of model families, and loading of saved models by family.

Families of this package are found by parsing its modules rather than importing them, so that a process that serves one
family does not load the libraries of the others. Families of other packages join through the entry-point group
`recommendai.models` (name: the family, value: `module:Class`).
"""

import ast
import json
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

from configs.plugins import plugged_in
from training.models.contract import Ensemble, Recommender

MODEL_FILE = "model.json"
_PACKAGE = __name__.rpartition(".")[0]


def families() -> tuple[str, ...]:
    """Names of all families, sorted."""
    return tuple(sorted(_locations()))


def family_class(family: str) -> type[Recommender]:
    """The class of a family; imports its module. Raises KeyError for an unknown name, TypeError for a wrong class."""
    locations = _locations()
    if family not in locations:
        raise KeyError(f"no model family {family!r}; there are {', '.join(sorted(locations))}")
    module, _, name = locations[family].partition(":")
    found = getattr(import_module(module), name)
    if not (isinstance(found, type) and issubclass(found, Recommender)):
        raise TypeError(f"{locations[family]} of family {family!r} is no Recommender")
    if found.family != family:
        raise TypeError(f"{locations[family]} stands for the family {family!r} and calls itself {found.family!r}")
    return found


def family_module(family: str) -> str:
    """The name of the module that defines a family, without importing it. Raises KeyError for an unknown name."""
    return _locations()[family].partition(":")[0]


def is_ensemble(family: str) -> bool:
    """Whether a family is an `Ensemble`; for one of this package from its source. Raises as `family_class` does."""
    if family in (sources := _sources()):
        return any(isinstance(base, ast.Name) and base.id == Ensemble.__name__ for base in sources[family].bases)
    return issubclass(family_class(family), Ensemble)


def save_model(model: Recommender, path: Path) -> None:
    """Write a fitted model into the folder `path`, with a `model.json` that says what it is."""
    path.mkdir(parents=True, exist_ok=True)
    model.save(path)
    description = {"family": model.family, "config": model.config.model_dump(mode="json"), "n_items": model.n_items}
    (path / MODEL_FILE).write_text(json.dumps(description, indent=2))


def load_model(path: Path, base_models: Mapping[str, Recommender] | None = None) -> Recommender:
    """The model that `save_model` wrote into `path`.

    Args:
        path: the folder.
        base_models: fitted models by family, for an `Ensemble`. It raises ValueError where one is missing.
    """
    description = json.loads((path / MODEL_FILE).read_text())
    found = family_class(description["family"])
    return found.load(path, base_models) if issubclass(found, Ensemble) else found.load(path)


@cache
def _locations() -> dict[str, str]:
    """Family -> `module:Class`. Raises ValueError where two classes claim one name."""
    found: dict[str, str] = {}
    own = [(family, location) for family, location, _ in _scan(Path(__file__).parent)]
    for family, location in [*own, *plugged_in().items()]:
        if found.setdefault(family, location) != location:
            raise ValueError(f"model family {family!r} is claimed by {found[family]} and {location}")
    return found


@cache
def _sources() -> dict[str, ast.ClassDef]:
    """Family -> the source of its class, for those of this package."""
    return {family: node for family, _, node in _scan(Path(__file__).parent)}


def _scan(package: Path) -> list[tuple[str, str, ast.ClassDef]]:
    """(family, location, class) of every class in the package's sources whose body sets `family` to a string."""
    found = []
    for source in sorted(package.rglob("*.py")):
        parts = source.relative_to(package).with_suffix("").parts
        module = ".".join((_PACKAGE, *(part for part in parts if part != "__init__")))
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found += [(family, f"{module}:{node.name}", node) for family in map(_family_of, node.body) if family]
    return found


def _family_of(statement: ast.stmt) -> str | None:
    """The name that `family = "..."` or `family: ClassVar[str] = "..."` gives, where the statement is one."""
    if isinstance(statement, ast.AnnAssign):
        targets: list[ast.expr] = [statement.target]
    elif isinstance(statement, ast.Assign):
        targets = statement.targets
    else:
        return None
    named = any(isinstance(target, ast.Name) and target.id == "family" for target in targets)
    value = statement.value
    return value.value if named and isinstance(value, ast.Constant) and isinstance(value.value, str) else None
