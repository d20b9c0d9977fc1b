"""Entry points add families of other packages, under names that paths, models and requests can hold."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from configs.plugins import plugged_in
from training.models import registry

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts the metadata of an installed package on the path, with one entry point of this name and value."""

    def install(name: str, value: str) -> None:
        info = tmp_path / "foreign-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[recommendai.models]\n{name} = {value}\n")
        monkeypatch.syspath_prepend(tmp_path)

    plugged_in.cache_clear()
    registry._locations.cache_clear()
    yield install
    plugged_in.cache_clear()
    registry._locations.cache_clear()


def test_a_family_is_found_by_its_name_and_not_imported(install: Install) -> None:
    install("foreign", "no_such_module:Model")
    assert plugged_in() == {"foreign": "no_such_module:Model"}
    assert "foreign" in registry.families()
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        registry.family_class("foreign")


@pytest.mark.parametrize("name", ["Two", "two.words", "-x", "random", "similar", "a" * 33])
def test_a_name_that_cannot_be_carried_is_refused(install: Install, name: str) -> None:
    install(name, "foreign.model:Model")
    with pytest.raises(ValueError, match=r"foreign.model:Model cannot be the model family"):
        plugged_in()


def test_a_class_that_calls_itself_otherwise_is_refused(install: Install) -> None:
    install("foreign", "training.models.popularity:Popularity")
    with pytest.raises(TypeError, match="stands for the family 'foreign' and calls itself 'popularity'"):
        registry.family_class("foreign")


def test_a_name_of_the_platforms_own_is_refused(install: Install) -> None:
    install("hybrid", "foreign.model:Model")
    with pytest.raises(ValueError, match=r"'hybrid' is claimed by .* and foreign.model:Model"):
        registry.families()
