"""What is kept of a comparison: whole models by what decides them, and how far an interrupted fit had come."""

import importlib
import sys
from pathlib import Path

import pytest

from tests.training.catalogue import build_dataset
from training.data.splits import Split, temporal_split
from training.evaluation import kept_models
from training.evaluation.code_version import code_version
from training.evaluation.comparison import EvaluationSetup, SkippedFamily, evaluate_families
from training.evaluation.intervals import Estimate
from training.evaluation.paired_comparison import ComparisonVerdict, PairedComparison
from training.models.contract import RuntimeOptions
from training.train import EvaluatedModel
from training.tuning.shared_search import FamilySearch


class Watch:
    """Notes the steps of long fits, and breaks off where it is told to."""

    def __init__(self, until: tuple[int, int] | None = None) -> None:
        self.until, self.steps = until, list[tuple[int, int]]()

    def family_started(self, family: str) -> None: ...

    def step_ended(self, step: int, total: int, figure: float | None) -> None:
        self.steps.append((step, total))
        if (step, total) == self.until:
            raise KeyboardInterrupt

    def queries_ranked(self, done: int, total: int) -> None: ...

    def search_started(self, family: str) -> None: ...

    def search_ended(self, found: FamilySearch) -> None: ...

    def family_ended(self, family: str, outcome: EvaluatedModel | SkippedFamily) -> None: ...


@pytest.fixture(scope="module")
def split() -> Split:
    return temporal_split(build_dataset())


def setup_in(split: Split, folder: Path, keep: Path | None) -> EvaluationSetup:
    (folder / "deep-learning.yaml").write_text(
        "{dimensions: 8, heads: 1, blocks: 1, max_length: 10, epochs: 4, patience: 4, refit_epochs: 2}"
    )
    options = RuntimeOptions(threads=1, max_seconds=1e6)  # time must not set the rate, however busy the machine
    return EvaluationSetup(split, options, configs=folder, keep=keep)


def measure(where: EvaluationSetup, watch: Watch) -> EvaluatedModel:
    (found,) = evaluate_families(["deep-learning"], where, watch)
    assert isinstance(found, EvaluatedModel)
    return found


@pytest.mark.fit
@pytest.mark.parametrize("broken_off", [(3, 4), (1, 2)])
def test_an_interrupted_fit_goes_on_where_it_was(split: Split, tmp_path: Path, broken_off: tuple[int, int]) -> None:
    """Within the validated epochs, and within the pass over all events that follows."""
    where = setup_in(split, tmp_path, tmp_path / "kept")
    first, second, whole = Watch(until=broken_off), Watch(), Watch()
    with pytest.raises(KeyboardInterrupt):
        measure(where, first)
    assert [folder.suffix for folder in (tmp_path / "kept").iterdir()] == [kept_models.UNFINISHED]
    resumed, straight = measure(where, second), measure(setup_in(split, tmp_path, None), whole)
    assert first.steps + second.steps == whole.steps  # no epoch twice
    assert resumed.report.results[0].metrics == straight.report.results[0].metrics
    (folder,) = (tmp_path / "kept").iterdir()
    assert (folder / kept_models.KEY_FILE).is_file()  # and no checkpoint beside it


@pytest.mark.fit
def test_a_model_of_other_code_is_not_taken(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = EvaluationSetup(split, RuntimeOptions(threads=1), keep=tmp_path)
    for version in ("one", "one", "other"):
        monkeypatch.setattr(kept_models, "code_version", lambda *modules, version=version: version)
        list(evaluate_families(["popularity"], where, Watch()))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_version_is_of_what_a_module_imports_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "ofateam"
    package.mkdir()
    for name, text in {
        "__init__": "",
        "model": "import json\n\n\ndef fit():\n    from ofateam.loss import loss\n    from . import steps",
        "loss": "loss = 1",
        "steps": "from training.data.splits import Split",
        "plot": "colour = 1",
    }.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    before = code_version("ofateam.model")
    assert not {"ofateam.model", "ofateam.loss"} & set(sys.modules)  # read, not run
    (package / "plot.py").write_text("colour = 2")
    assert code_version("ofateam.model") == before
    for name in ("loss", "steps"):
        (package / f"{name}.py").write_text("other = 2")
        assert code_version("ofateam.model") != before
        before = code_version("ofateam.model")
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        code_version("ofateam.nowhere")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.03, ComparisonVerdict.BETTER),
        (-0.03, -0.01, ComparisonVerdict.WORSE),
        (-0.01, 0.03, ComparisonVerdict.UNDECIDED),
    ],
)
def test_an_interval_around_nothing_decides_nothing(low: float, high: float, verdict: ComparisonVerdict) -> None:
    estimate = Estimate(mean=(low + high) / 2, low=low, high=high)
    found = PairedComparison(one="a", other="b", segment="all", metric="ndcg@10", n_users=9, difference=estimate)
    assert found.verdict is verdict
