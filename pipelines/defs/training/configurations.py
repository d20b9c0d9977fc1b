"""The hyper-parameters that a family's trainings use: what a search found better, else the family's default."""

from dataclasses import asdict, dataclass
from typing import Any

from pipelines.defs.training.steps import TrainingRun
from training.config import config_for
from training.data.profile import DataProfile
from training.evaluation.stored_config import UnreadableConfig
from training.models.contract import ModelConfig
from training.tracking.searches import adopted_search


@dataclass(frozen=True)
class ChosenConfiguration:
    """A configuration, and in words where it comes from."""

    config: ModelConfig
    source: str
    profile: DataProfile  # of the events that a first fit learns from

    def profile_values(self) -> dict[str, Any]:
        """The profile as the value of an asset holds it."""
        return asdict(self.profile)


def chosen_configuration(run: TrainingRun, family: str) -> ChosenConfiguration:
    """What trainings of the family use on this snapshot.

    A search whose configuration today's code cannot read, as after a key was renamed, leaves the default; the source
    says so.
    """
    _, split = run.data()
    profile = DataProfile.of(split.train)
    found = adopted_search(run.tracking, run.tenant, family)
    if found is not None and found.config is not None and not isinstance(found.config, UnreadableConfig):
        return ChosenConfiguration(found.config, f"search of {found.ended_at}, run {found.run_id}", profile)
    source = "default for the data"
    if found is not None and isinstance(found.config, UnreadableConfig):
        source += f", since the configuration of search {found.run_id} is unusable: {found.config.reason}"
    return ChosenConfiguration(config_for(family, profile), source, profile)
