"""What the documentation names is there: files, links, modules, commands and settings."""

import importlib.util
import re
from itertools import product
from pathlib import Path

import pytest

from tests.fixtures.settings import all_aliases

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("configs", "feature_store", "training", "serving", "pipelines", "api", "tests", "notebooks", "docs")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
HISTORY = {"CHANGELOG.md", "docs/models-log.md", "docs/glossary.md"}
"""Pages that name what is no longer there."""
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")


def expand(name: str) -> list[str]:
    """`a/{b,c}.py` is a/b.py and a/c.py, as a shell reads it."""
    parts = [part.split(",") if index % 2 else [part] for index, part in enumerate(re.split(r"[{}]", name))]
    return ["".join(choice) for choice in product(*parts)]


def missing_paths(text: str) -> list[str]:
    """Paths in backticks that begin with a folder of the project and lead nowhere; `*` and `<name>` match any text."""
    wrong = []
    for code in CODE.findall(text):
        if not re.fullmatch(r"[\w./{},*<>-]+", code) or "/" not in code or code.partition("/")[0] not in PACKAGES:
            continue
        for path in expand(code):
            pattern = re.sub(r"<[^>]*>", "*", path).rstrip("/")
            if not next(iter(ROOT.glob(pattern)), None):
                wrong.append(path)
    return wrong


def missing_modules(text: str) -> list[str]:
    """Dotted names in backticks, or behind `python -m`, that begin with a package and are no module or part of one."""
    wrong = []
    names = [code for code in CODE.findall(text) if re.fullmatch(r"[a-z_]+(\.\w+)+", code)]
    names += re.findall(r"python -m ([\w.]+)", text)
    for name in names:
        parts = name.split(".")
        if parts[0] not in PACKAGES or parts[-1] in {"py", "yaml", "md", "lock", "json"}:
            continue
        for depth in range(len(parts), 0, -1):
            path = ROOT.joinpath(*parts[:depth])
            if path.is_dir() or path.with_suffix(".py").exists():
                break
        rest = parts[depth:]
        source = path.with_suffix(".py")
        if rest and not (source.exists() and re.search(rf"\b{re.escape(rest[0])}\b", source.read_text())):
            wrong.append(name)
    return wrong


def missing_targets(text: str) -> list[str]:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    fenced = "\n".join(re.findall(r"^```.*?^```", text, flags=re.M | re.S))
    named = [*re.findall(r"`make ([a-z][a-z-]*)", text), *re.findall(r"^make ([a-z][a-z-]*)", fenced, flags=re.M)]
    return [name for name in named if name not in targets]


def test_a_name_that_leads_nowhere_is_found() -> None:
    assert expand("a/{b,c}.py") == ["a/b.py", "a/c.py"]
    assert missing_paths("`configs/settings.py`, `configs/{plans,gone}.py`, `docs/*.md`") == ["configs/gone.py"]
    assert missing_modules("`configs.settings.PathSettings`, `configs.settings.Gone`") == ["configs.settings.Gone"]
    assert missing_targets("`make demo` and `make tea`") == ["tea"]


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES])
def test_a_page_names_what_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    links = [link for link in LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]
    assert not [link for link in links if not ((ROOT / page).parent / link).exists()], "links that lead nowhere"
    if page not in HISTORY:
        assert not missing_paths(text)
        assert not missing_modules(text)
        assert not missing_targets(text)


def test_every_setting_that_a_page_names_is_read() -> None:
    known = all_aliases()
    assert "TRAIN_MAX_SECONDS" in known
    makefile = (ROOT / "Makefile").read_text()
    makefile += "".join(path.read_text() for path in (ROOT / "configs" / "deploy").rglob("*") if path.is_file())
    sources = [path for package in PACKAGES[:6] for path in (ROOT / package).rglob("*.py")]
    code = "".join(path.read_text() for path in sources)
    named = {
        name
        for page in PAGES
        if str(page.relative_to(ROOT)) not in HISTORY
        for name in re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", page.read_text())
    }
    unread = {name for name in named - known if name not in makefile and not re.search(rf"\b{name}\b", code)}
    assert not unread, f"settings that nothing reads: {sorted(unread)}"


def test_every_program_that_a_page_starts_is_there() -> None:
    for page in PAGES:
        for name in re.findall(r"python -m (\w+)", page.read_text()):
            assert importlib.util.find_spec(name), f"{page.name} starts {name}"
