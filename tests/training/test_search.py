"""The pipeline's search: in rungs of users, from anchors, ended from outside, and compared with what is in use."""

from dataclasses import replace

import numpy as np
import pytest

from tests.training.catalogue import build_dataset
from training.config import config_for
from training.data.profile import DataProfile
from training.data.splits import temporal_split
from training.evaluation.intervals import paired_difference
from training.evaluation.rankings import rank_queries
from training.models.contract import RuntimeOptions
from training.models.popularity import Popularity, PopularityConfig
from training.models.registry import family_class
from training.tuning import halving
from training.tuning.halving import SearchStoppedError, rung_shares, search_by_halving, split_of_sample
from training.tuning.results import StudyResult, TrialResult
from training.tuning.search_space import is_searchable, load_anchors, load_space
from training.tuning.shared_search import SharedSearch

pytestmark = pytest.mark.fit

OPTIONS = RuntimeOptions(threads=1, seed=3)
SPLIT = temporal_split(build_dataset())
SPACE = load_space("popularity")


@pytest.mark.parametrize("family", ["collaborative", "content-based", "deep-learning", "hybrid"])
def test_every_anchor_is_a_configuration_of_its_family_and_differs_from_the_default(family: str) -> None:
    default = config_for(family, DataProfile.of(SPLIT.train))
    anchors = load_anchors(family, default)
    assert anchors and all(isinstance(each, family_class(family).Config) for each in anchors)
    assert is_searchable(family) and not is_searchable("a-plug-in")


def test_a_rung_keeps_a_third_and_the_last_compares_with_what_is_in_use_on_everybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n_events = len(SPLIT.train.interactions)
    monkeypatch.setattr(halving, "MIN_EVENTS", n_events / 10)
    assert rung_shares(n_events) == (1 / 9, 1 / 3, 1)
    fitted: list[int] = []
    fit = Popularity.fit
    monkeypatch.setattr(
        Popularity, "fit", lambda self, data, options: fitted.append(len(data.interactions)) or fit(self, data, options)
    )
    base, anchor = PopularityConfig(half_life_days=0.5), PopularityConfig(half_life_days=300.0)
    told: list[TrialResult] = []
    found = search_by_halving(
        *(Popularity, SPLIT, SPACE, base), options=OPTIONS, minutes=5, trials=12, anchors=[anchor], on_trial=told.append
    )
    assert found.trials == tuple(told) and [trial.number for trial in told] == list(range(len(told)))
    by_share = {share: [trial for trial in told if trial.share == share] for share in (1 / 9, 1 / 3, 1)}
    assert [len(trials) for trials in by_share.values()] == [12, 5, 3]  # of 11 others four, of these two; and the base
    assert all(trials[0].config == base for trials in by_share.values()) and told[1].config == anchor
    sizes = [size / n_events for size in fitted]
    assert sizes[:12] == pytest.approx([1 / 9] * 12, abs=0.08) and sizes[-3:] == [1, 1, 1]
    assert found.base == 17 and found.value == max(trial.value or 0 for trial in by_share[1])
    assert found.best >= found.base  # figures of a sample do not count
    model = Popularity(found.config).fit(SPLIT.train, OPTIONS)  # type: ignore[arg-type]
    assert found.value == pytest.approx(np.nanmean(rank_queries(model, SPLIT.validation).per_user["ndcg@10"]))
    small = split_of_sample(SPLIT, 1 / 9, 0).train.interactions.users
    assert set(small) <= set(split_of_sample(SPLIT, 1 / 3, 0).train.interactions.users)


def test_the_test_window_has_no_say_in_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halving, "MIN_EVENTS", len(SPLIT.train.interactions) / 4)
    other = replace(SPLIT, test=SPLIT.test.sample(3, 0), before_test=SPLIT.train)
    base = PopularityConfig(half_life_days=0.5)
    found = [
        search_by_halving(Popularity, split, SPACE, base, options=OPTIONS, minutes=5, trials=6)
        for split in (SPLIT, other)
    ]
    assert (found[0].config, found[0].value) == (found[1].config, found[1].value)


def test_a_search_that_is_stopped_has_the_trials_so_far_and_what_was_promising(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[TrialResult] = []
    base = PopularityConfig(half_life_days=0.5)

    def search() -> None:
        told.clear()
        found = search_by_halving(
            *(Popularity, SPLIT, SPACE, base),
            **{"options": OPTIONS, "minutes": 5, "on_trial": told.append, "stop": lambda: len(told) == 3},
        )
        assert found.stopped and len(found.trials) == 3
        best = max(told, key=lambda trial: trial.value or 0)
        assert found.promising(2)[0] == best.config and found.config == best.config

    search()
    monkeypatch.setattr(halving, "MIN_EVENTS", len(SPLIT.train.interactions) / 4)
    with pytest.raises(SearchStoppedError) as stopped:
        search()
    assert len(stopped.value.trials) == 3


def test_only_a_winner_that_is_shown_better_is_adopted_and_what_was_searched_is_kept(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = tmp_path_factory.mktemp("kept")
    base = PopularityConfig(half_life_days=0.5)
    monkeypatch.setattr(halving, "MAX_TRIALS", 6)
    shared = SharedSearch(SPLIT, OPTIONS, minutes=1, keep=keep)
    chosen = shared.configuration("popularity", base, {}, families_left=2)
    (found,) = shared.results
    assert found.improvement is not None and found.improvement.low is not None
    assert found.adopted == (found.improvement.low > 0) == (chosen != base)
    again = SharedSearch(SPLIT, OPTIONS, minutes=1, keep=keep)
    monkeypatch.setattr(Popularity, "fit", lambda *_: pytest.fail("it was searched before"))
    assert again.configuration("popularity", base, {}, families_left=2) == chosen
    assert again.results == shared.results


def searched(figures: np.ndarray) -> StudyResult:
    """A search whose trials reached these figures of each query, float64 [n_trials, n_queries]; the first is in use."""
    trials = [
        TrialResult(number, PopularityConfig(), float(values.mean()), (), "complete", "", 1.0, values)
        for number, values in enumerate(figures)
    ]
    best = int(figures.mean(axis=1).argmax())
    return StudyResult(best, PopularityConfig(), float(figures[best].mean()), tuple(trials))


def test_the_luckiest_of_many_equal_trials_is_not_shown_better_and_a_better_one_is() -> None:
    shown, by_its_own_queries, better = 0, 0, 0
    for seed in range(16):
        rng = np.random.default_rng(seed)
        figures = rng.random(100) + rng.normal(0, 0.1, (200, 100))
        lucky = searched(figures)
        shown += lucky.shown_better
        by_its_own_queries += (paired_difference(figures[lucky.best], figures[0]).low or 0) > 0
        raised = figures.copy()
        raised[7] += 0.06
        better += searched(raised).shown_better
    assert by_its_own_queries >= 4
    assert shown <= 1  # 2.5 % of searches that have nothing to find
    assert better >= 14
    assert "not shown better" in lucky.summary() and searched(raised).summary().startswith("better than")
