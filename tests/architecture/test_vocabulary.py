"""A retired word does not come back as a name. `docs/glossary.md` says which words, where, and what is said instead."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
PACKAGES = ("configs", "feature_store", "training", "serving", "pipelines", "api")
TESTS = ("tests/training", "tests/benchmarks/peers", "tests/benchmarks/quality")
"""Tests of what is in `training`. They are held to the words of that room, not to those of single modules in it."""
FORMS = ("any", "whole", "module", "class", "function")
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

STORED_ALIASES: dict[str, dict[str, str]] = {
    # Hyper-parameters: in `model.json`, reports, MLflow's params, and a tenant's own files.
    "training/models/collaborative/model.py": {
        "memories": "decay_half_lives",
        "memory_regularisation": "transition_regularisation",
        "memory_items": "transition_items",
        "repetition": "repeat_weight",
    },
    "training/models/content_based/config.py": {"newcomers": "cold_item_share", "likeness": "similarity_weight"},
    "training/models/deep_learning/config.py": {
        "trend_half_lives": "popularity_half_lives",
        "asked": "target_share",
        "mask_past": "mask_history",
        "averaging": "weight_averaging",
    },
    "training/models/hybrid/config.py": {
        "questions_per_user": "queries_per_user",
        "max_questions": "max_queries",
        "newcomers": "cold_item_share",
        "newcomer_cost": "cold_item_cost",
    },
    # The same of the ranker, and what it has learned, in `hybrid.json`.
    "training/models/hybrid/learning.py": {
        "breadth_powers": "diversity_powers",
        "kept_component": "kept_base_model",
        "n_questions": "n_queries",
        "component_ndcg": "base_model_ndcg",
        "breadth": "aggregate_diversity",
        "component_breadth": "base_model_diversity",
    },
    # What was learned of cold items, in `labelled.json`.
    "training/models/cold_start/rate.py": {"moment": "reference_day", "dated": "date_fields"},
}
"""Module -> names that stored documents spell as earlier versions did -> what they are called now. Both are read."""

STORED_MAPPINGS: dict[str, str] = {
    "training/models/linear.py:_EARLIER_NAMES": "keys of terms in linear.json",
    "training/models/deep_learning/model.py:_EARLIER_TENSORS": "names of tensors in weights.safetensors",
    "training/models/hybrid/storage.py:_EARLIER_NAMES": "keys of hybrid.json and hybrid.npz",
    "training/models/cold_start/label_mixture.py:_EARLIER_FILES": "files of a label mixture",
    "training/models/cold_start/label_mixture.py:_EARLIER_NAMES": "keys of these files",
    "training/tracking/stored_names.py:RENAMED_TAGS": "tags in MLflow",
    "training/tracking/stored_names.py:RENAMED_METRICS": "metrics in MLflow",
    "training/tracking/stored_names.py:RENAMED_METADATA": "metadata of logged models in MLflow",
}
"""Constants that map earlier names to those of today where a stored document is read, and what they are names of."""


@dataclass(frozen=True)
class Definition:
    """A name that a module gives to something. `path` is relative to the project's root."""

    path: str
    line: int
    kind: str  # module, class, function, argument, attribute or variable
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.kind} {self.name}"

    @property
    def words(self) -> str:
        """The name in lower-case words between underscores, whichever way it is written."""
        return "_".join(WORDS.findall(self.name)).lower()


@dataclass(frozen=True)
class Retired:
    """A word of the glossary's last table, in one room."""

    word: str  # in lower case, with underscores between several
    form: str
    room: str  # a folder or a module
    standard: str

    def __str__(self) -> str:
        return f"{self.word} in {self.room}"

    def names(self, definition: Definition) -> bool:
        """Whether the definition uses the word with its retired meaning."""
        rooms = (self.room, *TESTS) if self.room == "training" else (self.room,)
        if not any(definition.path == room or definition.path.startswith(f"{room}/") for room in rooms):
            return False
        if self.form == "any":
            return f"_{self.word}_" in f"_{definition.words}_"
        return definition.words == self.word and self.form in ("whole", definition.kind)


def definitions(source: str, path: str) -> Iterator[Definition]:
    """Every definition of a module; what it imports, reads and calls is named by others."""
    for part in Path(path).with_suffix("").parts[1:]:
        yield Definition(path, 1, "module", part.removeprefix("test_"))
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef(name=name, lineno=line):
                yield Definition(path, line, "class", name)
            case ast.FunctionDef(name=name, lineno=line) | ast.AsyncFunctionDef(name=name, lineno=line):
                yield Definition(path, line, "function", name)
            case ast.arg(arg=name, lineno=line):
                yield Definition(path, line, "argument", name)
            case ast.Attribute(attr=name, ctx=ast.Store(), lineno=line):
                yield Definition(path, line, "attribute", name)
            case ast.Name(id=name, ctx=ast.Store(), lineno=line):
                yield Definition(path, line, "variable", name)
            case ast.alias(asname=str(name), lineno=line):
                yield Definition(path, line, "variable", name)


def retired_words() -> list[Retired]:
    """The rows of the glossary's last table, one for each word and room."""
    found = []
    table = GLOSSARY.read_text().partition("| retired word |")[2].splitlines()[2:]
    for line in table:
        words, form, rooms, standard = (cell.strip() for cell in line.strip("|").split("|"))
        pairs = [(word, room) for word in re.findall(r"`(\w+)`", words) for room in re.findall(r"`([\w/.]+)`", rooms)]
        found += [Retired(word, form, room, standard) for word, room in pairs]
    return found


RETIRED = retired_words()


def sources(*folders: str) -> dict[str, str]:
    """The text of every module below these folders, by path."""
    files = chain.from_iterable((ROOT / folder).rglob("*.py") for folder in folders)
    return {str(file.relative_to(ROOT)): file.read_text() for file in sorted(files)}


@pytest.fixture(scope="module")
def defined() -> list[Definition]:
    return [one for path, text in sources(*PACKAGES, *TESTS).items() for one in definitions(text, path)]


def example(retired: Retired) -> list[Definition]:
    """The definitions of a module in which the word is back."""
    path = retired.room if retired.room.endswith(".py") else f"{retired.room}/example.py"
    camel = "".join(part.title() for part in retired.word.split("_"))
    match retired.form:
        case "module":
            return list(definitions("", f"{retired.room}/{retired.word}.py"))
        case "class":
            return list(definitions(f"class {camel}: ...", path))
        case "function":
            return list(definitions(f"def {retired.word}(): ...", path))
        case "whole":
            return list(definitions(f"def f(x):\n    x.{retired.word} = 1", path))
        case _:
            return list(definitions(f"class Good{camel}Thing: ...", path))


@pytest.mark.parametrize("retired", RETIRED, ids=str)
def test_a_retired_word_does_not_come_back(retired: Retired, defined: list[Definition]) -> None:
    found = [str(one) for one in defined if retired.names(one)]
    assert not found, f"say {retired.standard!r} instead of {retired.word!r}: {found}"


@pytest.mark.parametrize("retired", RETIRED, ids=str)
def test_a_retired_word_would_be_found(retired: Retired) -> None:
    assert [one for one in example(retired) if retired.names(one)]
    elsewhere = [Definition(f"elsewhere/{one.path}", 1, one.kind, one.name) for one in example(retired)]
    assert not [one for one in elsewhere if retired.names(one)]


def test_the_table_is_read_whole() -> None:
    assert len(RETIRED) > 60
    assert {retired.form for retired in RETIRED} == set(FORMS)
    rooms = {retired.room for retired in RETIRED}
    assert not [room for room in rooms if not (ROOT / room).exists()], "rooms that are not there"


def test_tests_are_held_to_the_words_of_the_room_that_they_test() -> None:
    def found(path: str) -> set[str]:
        named = definitions("def test_again(asked): before = asked", path)
        return {one.name for one in named for retired in RETIRED if retired.names(one)}

    assert found("tests/training/test_served.py") == {"asked", "served"}
    assert found("tests/benchmarks/peers/queries.py") == {"asked"}
    assert found("tests/api/test_served.py") == set()
    assert all((ROOT / folder).is_dir() for folder in TESTS)


def test_calls_of_libraries_and_prose_are_free() -> None:
    source = '"""Asked again."""\nimport pytz\nresult = pytz.asked(again=1).lift\nfrom pytz import blend\n'
    assert [one.name for one in definitions(source, "training/models/example.py")] == ["models", "example", "result"]


def test_every_kind_of_definition_is_seen() -> None:
    body = "d: int\n    async def e(self, *f, g=1, **h):\n        self.i, j = 1, [k for k in f]"
    source = f"import a as b\nclass C:\n    {body}"
    found = {(one.kind, one.name) for one in definitions(source, "room/module.py")}
    assert found == {
        ("module", "module"),
        *(("variable", name) for name in "bdjk"),
        ("class", "C"),
        ("function", "e"),
        *(("argument", name) for name in ("self", "f", "g", "h")),
        ("attribute", "i"),
    }


def aliases(source: str) -> dict[str, str]:
    """Other spellings of fields -> the fields, as `AliasChoices` give them."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "AliasChoices":
                    spellings = [each.value for each in call.args if isinstance(each, ast.Constant)]
                    assert spellings[0] == node.target.id, f"{node.target.id} does not accept its own name first"
                    found.update({str(each): node.target.id for each in spellings[1:]})
    return found


def test_the_aliases_of_stored_names_are_those_listed() -> None:
    found = {path: aliases(text) for path, text in sources(*PACKAGES).items() if "AliasChoices(" in text}
    assert found == STORED_ALIASES


def test_the_mappings_of_stored_names_are_those_listed() -> None:
    mapping = re.compile(r"^(_EARLIER_\w+|RENAMED_\w+)\b.*= \{", re.M)
    found = {f"{path}:{name}" for path, text in sources(*PACKAGES).items() for name in mapping.findall(text)}
    assert found == set(STORED_MAPPINGS)
