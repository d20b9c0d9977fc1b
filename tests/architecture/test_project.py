"""Promises about the project's own files: what the lock holds, and what the repository says of itself."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWNERS_PACKAGES = {
    *("dagster", "mlflow", "torch", "torchrec", "pandas", "pyarrow", "duckdb", "bentoml", "sqlmodel"),
    *("strawberry-graphql", "stripe", "pyjwt", "slowapi", "pytest"),
}
PACKAGES = ("configs", "feature_store", "training", "serving", "pipelines", "api")


def test_every_package_of_the_owner_is_declared() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    declared = set(re.findall(r'"([A-Za-z0-9_-]+)(?:\[[^\]]*\])?[<>=~]', text))
    assert declared >= OWNERS_PACKAGES


def test_lock_leaves_torch_to_the_machine() -> None:
    names = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), flags=re.M))
    assert {"dagster", "mlflow", "bentoml", "fastapi"} <= names
    unwanted = {name for name in names if re.match(r"(torch|torchrec|fbgemm.*|nvidia-.*|triton|cuda-.*)$", name)}
    assert not unwanted


def test_every_locked_package_has_hashes_and_no_address() -> None:
    for lock in (*ROOT.glob("*.lock"), *(ROOT / "configs" / "datasets").glob("*.lock")):
        text = lock.read_text()
        assert "://" not in text
        assert "find-links" not in text
        entries = re.split(r"\n(?=[a-z0-9])", text.strip())
        assert all("--hash=sha256:" in entry for entry in entries)


def test_pickle_is_used_nowhere() -> None:
    pattern = re.compile(r"^\s*(import|from) (pickle|cloudpickle|joblib|dill)\b|allow_pickle=True|torch\.load\(", re.M)
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 20
    assert not [path for path in files if pattern.search(path.read_text())]


def test_no_file_holds_the_marks_of_a_merge() -> None:
    marks = re.compile(rf"^({'<' * 7}|{'>' * 7}) ", re.M)
    folders = (*PACKAGES, "docs", "tests", "notebooks")
    names = {".py", ".yaml", ".md", ".toml", ".ipynb"}
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in names]
    assert len(files) > 300
    assert not [path for path in [*files, *ROOT.glob("*.*")] if path.is_file() and marks.search(path.read_text())]


def test_migrations_form_one_line() -> None:
    """Two branches that each add the next number would leave a database that cannot be migrated."""
    files = sorted((ROOT / "api" / "database" / "migrations" / "versions").glob("[0-9]*.py"))
    said = [re.findall(r'^(?:down_)?revision = (?:"(\d+)"|None)', path.read_text(), flags=re.M) for path in files]
    numbers = [path.name[:4] for path in files]
    assert said == [[number, before] for number, before in zip(numbers, ["", *numbers], strict=False)]
