"""Finding families without paying for them, and saved models by family."""

import subprocess
import sys

import pytest

from training.models import registry
from training.models.collaborative.model import Collaborative


def test_a_family_is_its_class() -> None:
    assert registry.family_class("collaborative") is Collaborative


def test_an_ensemble_is_told_from_its_source() -> None:
    assert registry.is_ensemble("hybrid")
    assert not registry.is_ensemble("collaborative")


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match=r"no model family 'telepathy'; there are .*collaborative"):
        registry.family_class("telepathy")


@pytest.mark.service
def test_listing_and_loading_a_light_family_imports_no_deep_learning_library() -> None:
    program = (
        "import sys\n"
        "from training.models.registry import families, family_class\n"
        "assert 'deep-learning' in families()\n"
        "family_class('collaborative'), family_class('content-based'), family_class('hybrid')\n"
        "print([name for name in ('torch', 'torchrec', 'sklearn', 'implicit', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_class_in_the_package_is_found_by_what_it_calls_itself(tmp_path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "first.py").write_text('class A(Recommender):\n    family: ClassVar[str] = "first"\n')
    (tmp_path / "second.py").write_text('import nowhere\n\nclass B:\n    family = "second"\n\nclass Base:\n    pass\n')
    (tmp_path / "contract.py").write_text("class Recommender:\n    family: ClassVar[str]\n")
    assert sorted((family, location) for family, location, _ in registry._scan(tmp_path)) == [
        ("first", "training.models.deep.first:A"),
        ("second", "training.models.second:B"),
    ]


def test_two_classes_of_one_name_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(registry, "_scan", lambda _package: [("twin", "a:A", None), ("twin", "b:B", None)])
    registry._locations.cache_clear()
    try:
        with pytest.raises(ValueError, match="'twin' is claimed by a:A and b:B"):
            registry.families()
    finally:
        registry._locations.cache_clear()
