"""Sweeps look at the validation window alone, begin with what is in use, and write what they found."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from pydantic import ValidationError
from typer.testing import CliRunner

from tests.fixtures.mlflow_store import mlflow_store
from tests.training.catalogue import build_dataset
from tests.training.test_command_line import frame_of
from training.cli import TUNING_EXPERIMENT, app
from training.config import config_for, load_config
from training.data.dataset import Dataset
from training.data.profile import DataProfile
from training.data.splits import leave_one_out_split, temporal_split
from training.evaluation.intervals import paired_difference
from training.evaluation.rankings import rank_queries
from training.models.contract import RuntimeOptions
from training.models.hybrid.model import Hybrid, HybridConfig
from training.models.popularity import Popularity, PopularityConfig
from training.models.registry import families, family_class
from training.tuning.batches import GivenTrial, TrialOutcome
from training.tuning.ensembles import WINDOW, ensemble_fit
from training.tuning.results import COMPLETE, FAILED, PRUNED, TrialResult
from training.tuning.search_space import SearchSpace, load_space
from training.tuning.study import as_yaml, plain_fit, run_given_trial, run_study

pytestmark = pytest.mark.fit

OPTIONS = RuntimeOptions(threads=1, seed=3)
SPLIT = temporal_split(build_dataset())


@pytest.mark.parametrize("family", families())
def test_every_family_has_a_space_of_valid_configurations_around_its_own(family: str) -> None:
    base, space = load_config(family), load_space(family)
    assert set(space.encode(base)) == set(space.root)  # what is in use lies in it
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(space.encode(base))
    assert space.suggest(study.ask(), base) == base
    others = [space.suggest(study.ask(), base) for _ in range(20)]
    assert all(isinstance(each, family_class(family).Config) for each in others) and len(set(map(repr, others))) == 20


def test_an_ensemble_is_tuned_over_base_models_that_are_fitted_once_and_know_nothing_of_what_judges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted: list[Dataset] = []
    fit = Popularity.fit
    monkeypatch.setattr(Popularity, "fit", lambda self, data, options: fitted.append(data) or fit(self, data, options))
    learned = ensemble_fit(Hybrid, SPLIT, {name: load_config(name) for name in ("popularity", "item-knn")}, OPTIONS)
    ensemble_fits: list[Dataset] = []
    whole = Hybrid.fit
    monkeypatch.setattr(
        Hybrid, "fit", lambda self, data, options: ensemble_fits.append(data) or whole(self, data, options)
    )
    found = run_study(
        Hybrid, SPLIT, load_space("hybrid"), load_config("hybrid"), options=OPTIONS, minutes=5, trials=3, fit=learned
    )
    assert [trial.state for trial in found.trials] == [COMPLETE] * 3 and isinstance(found.config, HybridConfig)
    assert len(ensemble_fits) == 3 and all(data is SPLIT.train for data in ensemble_fits)
    earlier, later = fitted  # before the ensemble's queries, and for what it is judged on; neither per trial
    assert later is SPLIT.train
    share = len(earlier.interactions) / len(SPLIT.train.interactions)
    assert share == pytest.approx(1 - WINDOW, abs=0.01)
    assert earlier.interactions.timestamps.max() < SPLIT.train.interactions.timestamps.max()
    model = learned(found.config, OPTIONS)
    assert found.value == pytest.approx(rank_queries(model, SPLIT.validation).per_user["ndcg@10"].mean())


def test_an_ensemble_over_positions_learns_from_each_users_event_before_those_that_judge() -> None:
    split = leave_one_out_split(build_dataset())
    model = ensemble_fit(Hybrid, split, {"popularity": load_config("popularity")}, OPTIONS)(HybridConfig(), OPTIONS)
    users = len(np.unique(split.validation.users))
    assert isinstance(model, Hybrid) and model.learned.n_queries == pytest.approx(users, abs=20)


def test_an_ensemble_needs_base_models_and_a_space_names_what_there_is() -> None:
    with pytest.raises(ValueError, match="pass ensemble_fit"):
        run_study(Hybrid, SPLIT, load_space("hybrid"), load_config("hybrid"), options=OPTIONS, minutes=5, trials=1)
    with pytest.raises(ValueError, match="none of the families"):
        ensemble_fit(Hybrid, SPLIT, {}, OPTIONS)
    space = SearchSpace.model_validate({"half_lives": {"low": 1.0, "high": 2.0}})
    with pytest.raises(ValueError, match="half_lives"):
        space.encode(PopularityConfig())


@pytest.mark.parametrize("option", [{"low": 2, "high": 1}, {"low": 0.0, "high": 1.0, "log": True}, {"choices": []}])
def test_an_option_without_room_is_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SearchSpace.model_validate({"half_life_days": option})


def test_the_winner_does_best_on_validation_and_never_worse_than_the_start() -> None:
    told: list[TrialResult] = []
    base = PopularityConfig(half_life_days=0.5)
    found = run_study(
        Popularity, SPLIT, load_space("popularity"), base, options=OPTIONS, minutes=5, trials=8, on_trial=told.append
    )
    assert [trial.number for trial in told] == list(range(8)) and found.trials == tuple(told)
    assert told[0].config == base and found.baseline == told[0].value
    assert found.value == max(trial.value for trial in told if trial.value is not None)
    model = Popularity(found.config).fit(SPLIT.train, OPTIONS)  # type: ignore[arg-type]
    figures = rank_queries(model, SPLIT.validation).per_user["ndcg@10"]
    assert found.value == pytest.approx(figures.mean())
    start = rank_queries(Popularity(base).fit(SPLIT.train, OPTIONS), SPLIT.validation)
    assert found.improvement is not None
    # On the queries that chose the winner it can only look better.
    assert found.improvement.mean <= paired_difference(figures, start.per_user["ndcg@10"]).mean + 1e-12
    assert f"# {found.improvement.mean:+.4f} (" in as_yaml("popularity", SPLIT, found, 3)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_the_test_window_has_no_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    other = replace(
        SPLIT,
        test=SPLIT.test.sample(3, seed),
        before_test=SPLIT.train.where(rng.random(len(SPLIT.train.interactions)) < 0.5),
    )
    found = [
        run_study(Popularity, split, load_space("popularity"), PopularityConfig(), options=OPTIONS, minutes=5, trials=4)
        for split in (SPLIT, other)
    ]
    assert (found[0].config, found[0].value) == (found[1].config, found[1].value)


class Learner(Popularity):
    """Reports figures on the way: good ones for whole half-lives, ever worse ones for longer lives."""

    def fit(self, dataset, options):  # type: ignore[no-untyped-def]
        if self.config.half_life_days > 90:
            raise ValueError("too long a life")
        for step in range(1, 7):
            options.progress(step, 6, 1 / self.config.half_life_days)
        return super().fit(dataset, options)


def test_hopeless_fits_are_cut_off_and_impossible_ones_do_not_end_the_search() -> None:
    space = SearchSpace.model_validate({"half_life_days": {"low": 0.1, "high": 120.0}})
    found = run_study(Learner, SPLIT, space, PopularityConfig(), options=OPTIONS, minutes=5, trials=25)
    by_state = {
        state: [trial for trial in found.trials if trial.state == state] for state in (COMPLETE, PRUNED, FAILED)
    }
    assert all(by_state.values())
    assert all(2 <= len(trial.curve) < 6 and trial.value is None for trial in by_state[PRUNED])
    assert all(trial.reason == "too long a life" for trial in by_state[FAILED])
    assert found.config in [trial.config for trial in by_state[COMPLETE]]


class InBatches:
    """The trials of a batch, fitted in this process."""

    def __init__(self, batch: int, family: type[Popularity]) -> None:
        self.batch, self.family = batch, family

    def run(self, share: float, trials: Sequence[GivenTrial]) -> Generator[TrialOutcome, None, None]:
        for trial in trials:
            yield run_given_trial(trial, plain_fit(self.family, SPLIT), SPLIT, OPTIONS, halving=share < 1)


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["median", "halving"])
def test_batches_of_one_trial_are_the_study_without_batches(share: float) -> None:
    space = SearchSpace.model_validate({"half_life_days": {"low": 0.1, "high": 120.0}})
    anchors = [PopularityConfig(half_life_days=days) for days in (2.0, 8.0)]

    def searched(batch: int | None, trials: int = 20) -> list[tuple[object, ...]]:
        found = run_study(
            Learner,
            SPLIT,
            space,
            PopularityConfig(),
            options=OPTIONS,
            minutes=5,
            trials=trials,
            anchors=anchors,
            halving=share < 1,
            share=share,
            tasks=None if batch is None else InBatches(batch, Learner),
        )
        return [(each.number, each.config, each.value, each.curve, each.state, each.reason) for each in found.trials]

    alone = searched(None)
    assert searched(1) == alone and {each[4] for each in alone} == {COMPLETE, PRUNED, FAILED}
    together = searched(4)
    assert together == searched(4) and [each[0] for each in together] == list(range(20))
    configs, configs_alone = [each[1] for each in together], [each[1] for each in alone]
    assert configs[:3] == configs_alone[:3] and configs != configs_alone  # the given ones, and then what is drawn
    assert [each[1] for each in searched(4, trials=2)] == [PopularityConfig(), anchors[0]]


def test_a_search_in_batches_that_is_stopped_has_the_trials_so_far() -> None:
    told: list[TrialResult] = []
    space = SearchSpace.model_validate({"half_life_days": {"low": 0.1, "high": 60.0}})
    found = run_study(
        Popularity,
        SPLIT,
        space,
        PopularityConfig(),
        options=OPTIONS,
        minutes=5,
        on_trial=told.append,
        stop=lambda: len(told) == 3,
        tasks=InBatches(2, Popularity),
    )
    assert found.stopped and len(found.trials) == 3


def test_a_search_without_an_end_says_why() -> None:
    space = SearchSpace.model_validate({"half_life_days": {"low": 100.0, "high": 120.0}})
    base = PopularityConfig(half_life_days=110)
    with pytest.raises(ValueError, match="too long a life"):
        run_study(Learner, SPLIT, space, base, options=OPTIONS, minutes=5, trials=2)
    nobody = replace(SPLIT, validation=SPLIT.validation.take(np.empty(0, np.int64)))
    with pytest.raises(ValueError, match="no query"):
        run_study(Learner, nobody, space, base, options=OPTIONS, minutes=5, trials=2)


def test_the_command_writes_a_configuration_that_loads_and_logs_nested_runs(tmp_path: Path) -> None:
    frame_of(build_dataset()).to_parquet(tmp_path / "events.parquet")
    out, uri = tmp_path / "models" / "item-knn.yaml", mlflow_store(tmp_path)
    command = ["tune", "--interactions", str(tmp_path / "events.parquet"), "--family", "item-knn", "--out", str(out)]
    result = CliRunner().invoke(app, [*command, "--trials", "3", "--threads", "1", "--tracking", uri])
    assert result.exit_code == 0, result.output
    config = load_config("item-knn", folder=out.parent)
    assert yaml.safe_load(out.read_text()) == config.model_dump(mode="json")
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(TUNING_EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(trials) == 3 and {run.info.status for run in runs} == {"FINISHED"}
    assert parent.data.metrics["ndcg_at_10"] == max(run.data.metrics["ndcg_at_10"] for run in trials)
    assert parent.data.params["neighbours"] == str(config.model_dump()["neighbours"])
    assert parent.info.run_name == f"item-knn, temporal, {tmp_path.name}/events.parquet"
    assert out.read_text() in parent.data.tags["mlflow.note.content"]
    (winner,) = [run for run in trials if run.data.tags.get("best_trial") == "true"]
    assert winner.data.metrics["ndcg_at_10"] == parent.data.metrics["ndcg_at_10"]
    for run in trials:  # what was searched and nothing else, for as long as it took
        assert set(run.data.params) == set(load_space("item-knn").root)
        assert run.info.end_time - run.info.start_time == pytest.approx(
            1_000 * run.data.metrics["trial_seconds"], abs=2
        )
    best = [each.value for each in client.get_metric_history(parent.info.run_id, "ndcg_at_10")]
    assert best == sorted(best) and len(best) == 3


def test_the_command_tunes_an_ensemble_of_what_the_data_carry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # the library leaves there what another test has set
    dataset = build_dataset()
    frame_of(dataset).to_parquet(tmp_path / "events.parquet")
    (tmp_path / "deep-learning.yaml").write_text(
        "{dimensions: 8, heads: 1, blocks: 1, max_length: 10, epochs: 1, refit_epochs: 1}"
    )
    command = ["tune", "--interactions", str(tmp_path / "events.parquet"), "--family", "hybrid", "--trials", "1"]
    command += ["--threads", "1", "--configs", str(tmp_path), "--out", str(tmp_path / "out" / "hybrid.yaml")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "fitting collaborative, deep-learning twice" in result.stderr  # no metadata, no content
    start = config_for("hybrid", DataProfile.of(temporal_split(dataset).train))
    assert load_config("hybrid", folder=tmp_path / "out") == start  # which alone was tried


def test_the_command_refuses_what_it_cannot_tune(tmp_path: Path) -> None:
    frame_of(build_dataset()).to_csv(tmp_path / "events.csv", index=False)
    command = ["tune", "--interactions", str(tmp_path / "events.csv"), "--family", "oracle", "--trials", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and "no model family" in result.stderr and result.stderr.count("\n") == 1
