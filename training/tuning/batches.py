"""A study whose trials are drawn in batches, so that those of a batch can be fitted side by side on other machines.

Trials of a batch are drawn one after the other, and told in the order in which they were drawn, whenever they end. So
the same study comes out wherever they ran; it depends on the size of the batches, since the sampler and the pruner know
the trials of earlier batches only.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import optuna

from training.models.contract import ModelConfig
from training.tuning.results import COMPLETE, FAILED, PRUNED, TrialResult
from training.tuning.search_space import SearchSpace


@dataclass(frozen=True)
class EarlierTrial:
    """What a pruner knows of a trial of an earlier batch."""

    state: str
    value: float | None
    curve: dict[int, float]  # the held-out figure by step
    rungs: dict[str, float]  # figures that the pruner itself has kept


@dataclass(frozen=True)
class GivenTrial:
    """A trial to fit and judge."""

    number: int
    config: ModelConfig
    max_seconds: float  # of its fit
    earlier: tuple[EarlierTrial, ...]


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended, and the held-out figures that its pruner saw, by step."""

    result: TrialResult
    curve: dict[int, float]


class TrialTasks(Protocol):
    """Fits and judges the trials of a batch, perhaps on other machines."""

    batch: int
    """Trials that are drawn at a time."""

    def run(self, share: float, trials: Sequence[GivenTrial]) -> Generator[TrialOutcome, None, None]:
        """The outcomes in the order of the trials. Closing it ends those that run.

        share: of the users, on whose events they are fitted.
        """
        ...


@dataclass(frozen=True)
class _Drawn:
    trial: optuna.Trial
    config: ModelConfig | None
    reason: str  # why there is no configuration


def draw(
    study: optuna.Study, space: SearchSpace, center: ModelConfig, given: Sequence[ModelConfig], n: int
) -> list[_Drawn]:
    """Draw the next n trials. given: configurations that the first of them take in place of what is drawn."""
    drawn = []
    for number in range(n):
        trial = study.ask()
        try:
            config = space.suggest(trial, center)  # which every trial has to do
        except ValueError as error:
            drawn.append(_Drawn(trial, None, " ".join(str(error).split())))
        else:
            drawn.append(_Drawn(trial, given[number] if number < len(given) else config, ""))
    return drawn


def run_batch(
    study: optuna.Study, drawn: Sequence[_Drawn], tasks: TrialTasks, share: float, max_seconds: float
) -> Generator[TrialResult, None, None]:
    """Fit and judge drawn trials, and tell the study of each in the order of drawing. Closing it ends what runs."""
    earlier = tuple(_earlier(each) for each in study.get_trials(deepcopy=False) if each.state.is_finished())
    given = [
        GivenTrial(each.trial.number, each.config, max_seconds, earlier) for each in drawn if each.config is not None
    ]
    with closing(tasks.run(share, given)) as outcomes:
        for each in drawn:
            if each.config is None:
                failed = TrialResult(each.trial.number, None, None, (), FAILED, each.reason, 0.0)
                outcome = TrialOutcome(failed, {})
            else:
                outcome = next(outcomes)
            _tell(study, each.trial, outcome)
            yield outcome.result


def judged_alone(earlier: Sequence[EarlierTrial], pruner: optuna.pruners.BasePruner) -> optuna.Study:
    """A study that knows what a batch's pruner knows, for one further trial in another process."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    states = {COMPLETE: optuna.trial.TrialState.COMPLETE}
    for each in earlier:
        study.add_trial(
            optuna.trial.create_trial(
                state=states.get(each.state, optuna.trial.TrialState.PRUNED),
                value=each.value,
                intermediate_values=each.curve,
                system_attrs=dict(each.rungs),
            )
        )
    return study


def _earlier(trial: optuna.trial.FrozenTrial) -> EarlierTrial:
    complete = trial.state == optuna.trial.TrialState.COMPLETE
    rungs = {name: value for name, value in trial.system_attrs.items() if isinstance(value, float)}
    return EarlierTrial(COMPLETE if complete else PRUNED, trial.value, dict(trial.intermediate_values), rungs)


def _tell(study: optuna.Study, trial: optuna.Trial, outcome: TrialOutcome) -> None:
    for step, figure in outcome.curve.items():
        trial.report(figure, step)
        trial.should_prune()  # the pruner keeps what it needs of the trial; the trial itself has ended
    if outcome.result.value is None:
        # A failed trial counts as pruned, because the sampler forgets failures and would suggest them again.
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        study.tell(trial, outcome.result.value)
