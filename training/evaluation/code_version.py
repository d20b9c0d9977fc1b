"""A hash of the code that a result depends on, so that a result is loaded only where the same code made it."""

import ast
from collections.abc import Collection, Iterator
from functools import cache
from hashlib import blake2b
from importlib.util import find_spec, resolve_name
from pathlib import Path

_ROOTS = ("training", "feature_store")


def code_version(*modules: str) -> str:
    """A hash of the sources of these modules and of everything that they import from their own packages and from ours.

    Libraries are left out. Raises ModuleNotFoundError for a module without source.
    """
    roots = {*_ROOTS, *(module.partition(".")[0] for module in modules)}
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = source = _source(module)
            waiting += (name for name in _imports(module, source, roots) if name.partition(".")[0] in roots)
    digest = blake2b(digest_size=8)
    for module, source in sorted(found.items()):
        digest.update(f"{module}\0".encode() + source.read_bytes())
    return digest.hexdigest()


@cache
def _source(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"there is no source of {module}")
    return Path(spec.origin)


def _imports(module: str, source: Path, roots: Collection[str]) -> Iterator[str]:
    """The modules that a source imports, inside functions too. `from package import module` counts where in `roots`."""
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            yield base
            if base.partition(".")[0] in roots and _source(base).name == "__init__.py":
                names = (f"{base}.{alias.name}" for alias in node.names)
                yield from (name for name in names if find_spec(name) is not None)
