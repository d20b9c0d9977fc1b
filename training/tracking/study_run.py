"""A search for hyper-parameters in MLflow: one run for the study, with a nested run for every trial."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from configs.escaping import markdown_block
from training.tracking import payload
from training.tracking.experiments import Experiments, now_ms
from training.tuning.results import COMPLETE, FAILED, METRIC, PRUNED, StudyResult, TrialResult

_RUN_STATUS = {COMPLETE: "FINISHED", PRUNED: "KILLED", FAILED: "FAILED"}
"""How a trial ended, to the status that MLflow shows in every list of runs."""


class StudyRun:
    """The run of one study. Its metric is the best value so far, with the number of the trial as the step."""

    def __init__(self, tracking: Experiments, experiment_id: str, run_id: str, searched: Sequence[str]) -> None:
        """A run that exists already.

        searched: dotted paths of the searched hyper-parameters. A trial logs these alone; the study logs all of the
        best trial's.
        """
        self.tracking, self.experiment_id, self.run_id = tracking, experiment_id, run_id
        self.searched = frozenset(searched)
        self.trials: dict[int, str] = {}  # trial number to run id
        self.best = -math.inf

    def log_trial(self, trial: TrialResult) -> None:
        """Log a trial that has ended, as a run that began when the trial did."""
        client, metric, now = self.tracking.client, payload.metric_name(METRIC), now_ms()
        tags = {MLFLOW_PARENT_RUN_ID: self.run_id, "trial_state": trial.state, "trial_reason": trial.reason}
        name, began = f"trial {trial.number}", now - int(1_000 * trial.seconds)
        run = client.create_run(self.experiment_id, start_time=began, run_name=name, tags=tags).info.run_id
        self.trials[trial.number] = run
        metrics = [(f"{metric}_intermediate", value, step) for step, value in enumerate(trial.curve, start=1)]
        metrics += [("trial_seconds", trial.seconds, 0), ("trial_user_share", trial.share, 0)]
        if trial.value is not None:
            metrics.append((metric, trial.value, 0))
        params = {} if trial.config is None else payload.dotted(trial.config.model_dump(mode="json"))
        self.tracking.log_values(run, metrics, {name: params[name] for name in params if name in self.searched})
        client.set_terminated(run, _RUN_STATUS[trial.state], now)
        if trial.value is not None and trial.share == 1:
            self.best = max(self.best, trial.value)
            client.log_metric(self.run_id, metric, self.best, step=trial.number)

    def log_result(self, result: StudyResult, text: str) -> None:
        """Log the best trial. text: its configuration as YAML, which becomes the run's description."""
        self.tracking.client.set_tag(self.trials[result.best], "best_trial", "true")
        tags = {"best_trial": f"trial {result.best}", MLFLOW_RUN_NOTE: markdown_block(text, "yaml")}
        metrics: list[tuple[str, float, int]] = []
        if (improvement := result.improvement) is not None:
            named = {"": improvement.mean, "_low": improvement.low, "_high": improvement.high}
            metrics = [(f"improvement{suffix}", value, 0) for suffix, value in named.items() if value is not None]
        self.tracking.log_values(self.run_id, metrics, payload.dotted(result.config.model_dump(mode="json")), tags)


@contextmanager
def study_run(
    tracking: Experiments, experiment: str, name: str, tags: Mapping[str, str], searched: Sequence[str]
) -> Iterator[StudyRun]:
    """A new run for a study. It ends with the block, as failed where the block raises.

    Args:
        tracking: the server or store.
        experiment: name of the experiment, which is created where it does not exist.
        name: of the run.
        tags: of the run.
        searched: dotted paths of the searched hyper-parameters.
    """
    run = tracking.client.create_run(tracking.experiment_id(experiment), run_name=name, tags=dict(tags)).info
    try:
        yield StudyRun(tracking, str(run.experiment_id), str(run.run_id), searched)
    except BaseException:
        tracking.client.set_terminated(run.run_id, "FAILED")
        raise
    tracking.client.set_terminated(run.run_id)
