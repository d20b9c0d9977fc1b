"""The commands of `python -m training`. They read files and write a table and JSON, without any service."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from configs.files import write_text
from configs.history import HistorySettings
from configs.tracking import TrackingSettings
from feature_store.interaction_types import SeenPolicy

if TYPE_CHECKING:
    from training.data.loaders import LoadedDataset
    from training.data.splits import Split
    from training.models.contract import RuntimeOptions
    from training.tracking.study_run import StudyRun
    from training.tuning.ensembles import FitFunction  # importing it takes a second, which `--help` need not wait for
    from training.tuning.results import TrialResult
    from training.tuning.search_space import SearchSpace

app = typer.Typer(
    help="Measure model families on a data set, or look for better hyper-parameters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
messages = Console(stderr=True)
BAD_INPUT = 2
TUNING_EXPERIMENT = "tuning"
"""The MLflow experiment that holds all studies."""
CORES = os.cpu_count() or 1
PLAIN_WIDTH = 180
"""Characters of a line where the output is no terminal."""


class Protocol(StrEnum):
    """How a data set is split."""

    TEMPORAL = "temporal"
    LEAVE_ONE_OUT = "leave-one-out"


InteractionsFile = Annotated[
    Path,
    typer.Option(
        help="CSV or Parquet: user_id, item_id, timestamp and, where known, interaction_type and value (0 to 1)."
    ),
]
ItemsFile = Annotated[Path | None, typer.Option(help="CSV or Parquet: item_id; all other columns are metadata.")]
How = Annotated[Protocol, typer.Option(help="One cut in time for all users, or every user's last event.")]
ExcludeSeen = Annotated[SeenPolicy, typer.Option(help="Which of a user's earlier items are left out of the ranking.")]
Configs = Annotated[
    Path | None,
    typer.Option(help="Folder whose <family>.yaml files win over the defaults.", file_okay=False),
]
Seconds = Annotated[float, typer.Option(help="Bound on the fits of one family.", min=1)]
Seed = Annotated[int, typer.Option(min=0)]
Device = Annotated[str, typer.Option(help="cpu, or a device of PyTorch.")]
Threads = Annotated[int, typer.Option(help="Threads of linear algebra and PyTorch.", min=1)]


@app.command()
def evaluate(
    interactions: InteractionsFile,
    items: ItemsFile = None,
    protocol: How = Protocol.TEMPORAL,
    models: Annotated[str | None, typer.Option(help="Names of families, separated by commas; default: all.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures here as JSON.", dir_okay=False)] = None,
    configs: Configs = None,
    exclude_seen: ExcludeSeen = "all",
    max_seconds: Seconds = 2700,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = CORES,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Keep models here; a run with the same data, configuration, seed, time bound and code loads them.",
            file_okay=False,
        ),
    ] = None,
    search: Annotated[
        float | None,
        typer.Option(
            help="First look for better configurations on the validation window, as the pipeline does: minutes of all "
            "families together.",
            min=0.01,
        ),
    ] = None,
) -> None:
    """Fit families on the data before a test window, and measure how they rank what users chose within the window.

    Every item of the catalogue is ranked for every user; figures come with 95 % bootstrap intervals.
    """
    _limit_threads(threads)
    from training.evaluation.comparison import FAMILIES, EvaluationSetup, as_comparison, evaluate_families
    from training.models.contract import RuntimeOptions
    from training.terminal import (
        EvaluationProgress,
        print_comparison,
        print_paired_comparisons,
        print_without_refit,
    )
    from training.tuning.shared_search import SharedSearch

    try:
        loaded, split = _load(interactions, items, protocol, exclude_seen)
        names = _names(models) if models is not None else FAMILIES
        options = RuntimeOptions(device=device, seed=seed, threads=threads, max_seconds=max_seconds)
        searches = None if search is None else SharedSearch(split, options, search, keep)
        setup = EvaluationSetup(split, options, any(loaded.dataset.items.metadata), configs, keep, searches)
        outcomes, comparison = [], None
        with EvaluationProgress(messages, len(names)) as bars:
            for outcome in evaluate_families(names, setup, bars):
                outcomes.append(outcome)
                comparison = as_comparison(split, seed, outcomes, [] if searches is None else searches.results)
                if out is not None:  # after each family, so that a later failure does not lose hours of work
                    write_text(out, comparison.model_dump_json(indent=2))
    except (ValueError, KeyError, OSError) as error:
        _fail(error)
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    print_comparison(console, split, outcomes)
    print_without_refit(console, comparison.without_refit if comparison is not None else [])
    print_paired_comparisons(console, comparison.paired_comparisons if comparison is not None else [])
    if not any(outcome for outcome in outcomes if hasattr(outcome, "report")):
        _fail(ValueError("no model could be fitted"))


@app.command()
def tune(
    interactions: InteractionsFile,
    family: Annotated[str, typer.Option(help="The family to tune.")],
    items: ItemsFile = None,
    protocol: How = Protocol.TEMPORAL,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the best configuration here, for a folder of --configs: <family>.yaml.", dir_okay=False
        ),
    ] = None,
    configs: Configs = None,
    exclude_seen: ExcludeSeen = "all",
    minutes: Annotated[float, typer.Option(help="No trial begins after this many minutes.", min=0.01)] = 30,
    trials: Annotated[int | None, typer.Option(help="Largest number of trials.", min=1)] = None,
    max_seconds: Seconds = 2700,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = CORES,
    tracking: Annotated[
        str | None, typer.Option(help="MLflow: http://... or sqlite:///...; default: MLFLOW_TRACKING_URI, if set.")
    ] = None,
) -> None:
    """Look for better hyper-parameters of a family with Optuna, on the validation window alone.

    The first trial is the configuration in use, so the result is never worse than it on that window. The base models
    of an ensemble are fitted before the search, once for all trials, with the configurations in use.
    """
    _limit_threads(threads)
    from training.config import config_for
    from training.data.profile import DataProfile
    from training.models.contract import RuntimeOptions
    from training.models.registry import family_class
    from training.terminal import StudyProgress
    from training.tuning.search_space import load_space
    from training.tuning.study import as_yaml, run_study

    uri = tracking or TrackingSettings().uri
    try:
        tuned, space = family_class(family), load_space(family)
        loaded, split = _load(interactions, items, protocol, exclude_seen)
        base = config_for(family, DataProfile.of(split.train), folder=configs)
        options = RuntimeOptions(device=device, seed=seed, threads=threads, max_seconds=max_seconds)
        fit = _ensemble_fit(family, loaded, split, configs, options)
        with (
            StudyProgress(messages, minutes) as bar,
            _tracked_study(uri, family, interactions, split, seed, space) as run,
        ):

            def on_trial(trial: "TrialResult") -> None:
                bar.show_trial(trial)
                if run is not None:
                    run.log_trial(trial)

            result = run_study(
                tuned,
                split,
                space,
                base,
                options=options,
                minutes=minutes,
                trials=trials,
                on_trial=on_trial,
                fit=fit,
            )
            text = as_yaml(family, split, result, seed)
            if run is not None:
                run.log_result(result, text)
        if out is not None:
            write_text(out, text)
    except (ValueError, KeyError, OSError) as error:
        _fail(error)
    print(text, end="")


def _ensemble_fit(
    family: str, loaded: "LoadedDataset", split: "Split", configs: Path | None, options: "RuntimeOptions"
) -> "FitFunction | None":
    """How a trial fits an ensemble, whose base models are fitted here; None for any other family."""
    from training.config import config_for
    from training.data.profile import DataProfile
    from training.evaluation.comparison import ENSEMBLE_MEMBERS
    from training.models.contract import Ensemble
    from training.models.registry import family_class
    from training.tuning.ensembles import ensemble_fit

    ensemble = family_class(family)
    if not issubclass(ensemble, Ensemble):
        return None
    names = [name for name in ENSEMBLE_MEMBERS if name != "content-based" or any(loaded.dataset.items.metadata)]
    messages.print(f"fitting {', '.join(names)} twice, for all trials", style="dim")
    profile = DataProfile.of(split.train)
    chosen = {name: config_for(name, profile, folder=configs) for name in names}
    return ensemble_fit(ensemble, split, chosen, options)


@contextmanager
def _tracked_study(
    uri: str | None, family: str, interactions: Path, split: "Split", seed: int, space: "SearchSpace"
) -> "Iterator[StudyRun | None]":
    """The run of a study at a tracking server; None where no server is given."""
    if uri is None:
        yield None
        return
    # MLflow would print its address to standard output, where only the best configuration belongs.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from training.tracking.mlflow_store import Tracking
    from training.tracking.study_run import study_run

    data = "/".join(interactions.absolute().parts[-2:])
    tags = {"family": family, "data": data, "split_hash": split.hash, "protocol": split.protocol, "seed": str(seed)}
    name = f"{family}, {split.protocol.partition(':')[0]}, {data}"
    with study_run(Tracking(uri), TUNING_EXPERIMENT, name, tags, list(space.root)) as run:
        if uri.startswith("http"):
            messages.print(f"{uri}/#/experiments/{run.experiment_id}/runs/{run.run_id}", style="dim", soft_wrap=True)
        yield run


def _load(
    interactions: Path, items: Path | None, protocol: Protocol, exclude_seen: SeenPolicy
) -> "tuple[LoadedDataset, Split]":
    """The data set of the files, split by the protocol. Prints remarks on how the files were read."""
    from training.data.loaders import load_dataset_files
    from training.data.splits import leave_one_out_split, temporal_split

    loaded = load_dataset_files(interactions, items, HistorySettings().max_events)
    remarks = list(loaded.remarks)
    if protocol is Protocol.TEMPORAL:
        split = temporal_split(loaded.dataset, exclude_seen)
        needed = "an event in the test window"
        if not loaded.has_dates:
            remarks.append("one cut by positions compares users at different times; --protocol leave-one-out does not")
    else:
        split = leave_one_out_split(loaded.dataset, exclude_seen)
        needed = "three events"
    if not len(split.test):
        raise ValueError(f"there is no query: no user has {needed} with an item that is still to be ranked")
    for remark in remarks:
        messages.print(remark, style="dim", markup=False, highlight=False, soft_wrap=True)
    return loaded, split


def _names(text: str) -> tuple[str, ...]:
    from training.models.registry import family_class

    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ValueError("--models names no model")
    for name in names:
        family_class(name)
    return names


def _limit_threads(threads: int) -> None:
    """Bound the threads of libraries that are loaded from now on; a training bounds those of the loaded ones."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))


def _fail(error: Exception) -> NoReturn:
    """End with one line that says what is wrong with the input."""
    words = error.args[0] if isinstance(error, KeyError) and error.args else error
    print(" ".join(str(words).split()), file=sys.stderr)
    raise typer.Exit(BAD_INPUT)
