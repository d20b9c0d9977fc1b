"""The settings that assets, sensors and schedules work with."""

from dataclasses import dataclass, field

import dagster as dg

from configs.compute import ComputeSettings
from configs.database import LimitsOfJobs
from configs.exports import ExportSettings
from configs.features import FeatureSettings
from configs.generation import GenerationSettings
from configs.history import HistorySettings
from configs.pipelines import PipelineSettings
from configs.postgres import DatabaseSettings
from configs.retention import RetentionSettings
from configs.settings import PathSettings
from configs.tracking import TrackingSettings
from pipelines.compute.choice import compute_of
from pipelines.compute.port import Compute


@dataclass(frozen=True)
class Installation:
    """The settings of this installation, read from the environment when the object is made.

    A plain object instead of a `ConfigurableResource`: Dagster's UI shows a resource's configuration to everybody, and
    the database's URL holds a password.
    """

    paths: PathSettings = field(default_factory=PathSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    connections: LimitsOfJobs = field(default_factory=LimitsOfJobs)
    pipeline: PipelineSettings = field(default_factory=PipelineSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    exports: ExportSettings = field(default_factory=ExportSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    engine: ComputeSettings = field(default_factory=ComputeSettings)

    def database_url(self) -> str:
        """The database's URL, with the limits of jobs.

        It is read anew each time, since the bundled server may come back on another port.
        """
        return self.connections.limited(self.database.resolve(self.paths))

    def compute(self) -> Compute:
        """The machines that heavy steps run on: this one, or those of a cluster."""
        return compute_of(self.engine, self.paths)

    @property
    def sensor_status(self) -> dg.DefaultSensorStatus:
        """Whether sensors that add tenants or start trainings are switched on at first."""
        return dg.DefaultSensorStatus.RUNNING if self.pipeline.automation else dg.DefaultSensorStatus.STOPPED

    @property
    def schedule_status(self) -> dg.DefaultScheduleStatus:
        """Whether schedules are switched on at first."""
        return dg.DefaultScheduleStatus.RUNNING if self.pipeline.automation else dg.DefaultScheduleStatus.STOPPED
