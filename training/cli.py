"""The commands of `python -m training`. No service is needed: files in, a table and JSON out."""

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
from configs.settings import HistorySettings, TrackingSettings
from feature_store.interaction_types import SeenPolicy

if TYPE_CHECKING:
    from training.data.loaders import LoadedDataset
    from training.data.splits import Split
    from training.models.contract import RuntimeOptions
    from training.tracking.mlflow_store import StudyRun
    from training.tuning.ensembles import Fit  # a second that `--help` need not take
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
TUNING_EXPERIMENT = "tuning"  # the experiment that holds them
CORES = os.cpu_count() or 1
PAPER = 180  # characters of a line where no terminal says how many


class Protocol(StrEnum):
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
ExcludeSeen = Annotated[SeenPolicy, typer.Option(help="Which items that a user had before are not ranked.")]
Configs = Annotated[
    Path | None, typer.Option(help="Folder whose <family>.yaml files win over configs/models.", file_okay=False)
]
Seconds = Annotated[float, typer.Option(help="Bound on the fits of one family.", min=1)]
Seed = Annotated[int, typer.Option(min=0)]
Device = Annotated[str, typer.Option(help="cpu, or a device of PyTorch.")]
Threads = Annotated[int, typer.Option(help="Of linear algebra and PyTorch.", min=1)]


@app.command()
def evaluate(
    interactions: InteractionsFile,
    items: ItemsFile = None,
    protocol: How = Protocol.TEMPORAL,
    models: Annotated[str | None, typer.Option(help="Names with commas between; default: all.")] = None,
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
            help="Keep trained models here; a run with the same data, configuration, seed, bound and code takes them.",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Train families before a window of the data, and measure how they rank what users chose within it.

    Every item of the catalogue is ranked for every user; figures come with 95 % bootstrap intervals.
    """
    _limit_threads(threads)
    from training.evaluation.comparison import FAMILIES, EvaluationSetup, as_comparison, evaluate_families
    from training.models.contract import RuntimeOptions
    from training.terminal import EvaluationProgress, print_comparison, print_paired_comparisons

    try:
        tables, split = _load(interactions, items, protocol, exclude_seen)
        names = _names(models) if models is not None else FAMILIES
        options = RuntimeOptions(device=device, seed=seed, threads=threads, max_seconds=max_seconds)
        field = EvaluationSetup(split, options, any(tables.dataset.items.metadata), configs, keep)
        outcomes, comparison = [], None
        with EvaluationProgress(messages, len(names)) as bars:
            for outcome in evaluate_families(names, field, bars):
                outcomes.append(outcome)
                comparison = as_comparison(split, seed, outcomes)
                if out is not None:  # after each: what took an hour is not lost to what comes next
                    write_text(out, comparison.model_dump_json(indent=2))
    except (ValueError, KeyError, OSError) as error:
        _fail(error)
    console = Console(width=None if sys.stdout.isatty() else PAPER)
    print_comparison(console, split, outcomes)
    print_paired_comparisons(console, comparison.differences if comparison is not None else [])
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
        typer.Option(help="Write the winner here: configs/models/<data set>/<family>.yaml.", dir_okay=False),
    ] = None,
    configs: Configs = None,
    exclude_seen: ExcludeSeen = "all",
    minutes: Annotated[float, typer.Option(help="No trial begins after so long.", min=0.01)] = 30,
    trials: Annotated[int | None, typer.Option(help="At most so many.", min=1)] = None,
    max_seconds: Seconds = 2700,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = CORES,
    tracking: Annotated[
        str | None, typer.Option(help="MLflow: http://... or sqlite:///...; default: MLFLOW_TRACKING_URI, if set.")
    ] = None,
) -> None:
    """Look for better hyper-parameters of a family with Optuna, on the validation window alone.

    The search begins with the configuration that is in use, so the winner is never worse than it on that window. The
    base models of an ensemble are fitted before it, once for all trials, with the configurations that are in use.
    """
    _limit_threads(threads)
    from training.config import load_config
    from training.models.contract import RuntimeOptions
    from training.models.registry import family_class
    from training.terminal import StudyProgress
    from training.tuning.search_space import load_space
    from training.tuning.study import as_yaml
    from training.tuning.study import tune as search

    uri = tracking or TrackingSettings().uri
    try:
        base = load_config(family, folder=configs)
        space = load_space(family)
        tables, split = _load(interactions, items, protocol, exclude_seen)
        options = RuntimeOptions(device=device, seed=seed, threads=threads, max_seconds=max_seconds)
        fit = _blended(family, tables, split, configs, options)
        with StudyProgress(messages, minutes) as bar, _sweep(uri, family, interactions, split, seed, space) as sweep:

            def log(tried: "TrialResult") -> None:
                bar.log(tried)
                if sweep is not None:
                    sweep.log(tried)

            tuned = search(
                family_class(family),
                split,
                space,
                base,
                options=options,
                minutes=minutes,
                trials=trials,
                log=log,
                fit=fit,
            )
            text = as_yaml(family, split, tuned, seed)
            if sweep is not None:
                sweep.found(tuned, text)
        if out is not None:
            write_text(out, text)
    except (ValueError, KeyError, OSError) as error:
        _fail(error)
    print(text, end="")


def _blended(
    family: str, tables: "LoadedDataset", split: "Split", configs: Path | None, options: "RuntimeOptions"
) -> "Fit | None":
    """How an ensemble is fitted, its base models having been; None for any other family."""
    from training.config import load_config
    from training.evaluation.comparison import ENSEMBLE_MEMBERS
    from training.models.contract import Ensemble
    from training.models.registry import family_class
    from training.tuning.ensembles import ensemble_fit

    ensemble = family_class(family)
    if not issubclass(ensemble, Ensemble):
        return None
    names = [name for name in ENSEMBLE_MEMBERS if name != "content-based" or any(tables.dataset.items.metadata)]
    messages.print(f"fitting {', '.join(names)} twice, for all trials", style="dim")
    return ensemble_fit(ensemble, split, {name: load_config(name, folder=configs) for name in names}, options)


@contextmanager
def _sweep(
    uri: str | None, family: str, interactions: Path, split: "Split", seed: int, space: "SearchSpace"
) -> "Iterator[StudyRun | None]":
    """The run of a sweep at a tracking server; None where there is none."""
    if uri is None:
        yield None
        return
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # where the winner is printed
    from training.tracking.mlflow_store import Tracking

    data = "/".join(interactions.absolute().parts[-2:])
    facts = {"family": family, "data": data, "split_hash": split.hash, "protocol": split.protocol, "seed": str(seed)}
    name = f"{family}, {split.protocol.partition(':')[0]}, {data}"
    with Tracking(uri).sweep(TUNING_EXPERIMENT, name, facts, list(space.root)) as found:
        if uri.startswith("http"):
            messages.print(
                f"{uri}/#/experiments/{found.experiment_id}/runs/{found.run_id}", style="dim", soft_wrap=True
            )
        yield found


def _load(
    interactions: Path, items: Path | None, protocol: Protocol, exclude_seen: SeenPolicy
) -> "tuple[LoadedDataset, Split]":
    from training.data.loaders import load_dataset_files
    from training.data.splits import leave_one_out_split, temporal_split

    tables = load_dataset_files(interactions, items, HistorySettings().max_events)
    remarks = list(tables.remarks)
    if protocol is Protocol.TEMPORAL:
        split = temporal_split(tables.dataset, exclude_seen)
        asked = "an event in the test window"
        if not tables.clock:
            remarks.append("one cut by positions compares users at unlike moments; --protocol leave-one-out does not")
    else:
        split = leave_one_out_split(tables.dataset, exclude_seen)
        asked = "three events"
    if not len(split.test):
        raise ValueError(f"there is nothing to ask: no user has {asked} with an item that is still to be ranked")
    for remark in remarks:
        messages.print(remark, style="dim", markup=False, highlight=False, soft_wrap=True)
    return tables, split


def _names(text: str) -> tuple[str, ...]:
    from training.models.registry import family_class

    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ValueError("--models names no model")
    for name in names:
        family_class(name)
    return names


def _limit_threads(threads: int) -> None:
    """Libraries of linear algebra read their bound when they are loaded, which is after this."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))


def _fail(error: Exception) -> NoReturn:
    """End with one line that says what is wrong with the input."""
    words = error.args[0] if isinstance(error, KeyError) and error.args else error
    print(" ".join(str(words).split()), file=sys.stderr)
    raise typer.Exit(BAD_INPUT)
