"""What assets need of the installation they run in."""

from dataclasses import dataclass, field

from configs.settings import DatabaseSettings, HistorySettings, PathSettings, PipelineSettings, TrackingSettings


@dataclass(frozen=True)
class Installation:
    """The settings of this installation, read from the environment when it is made.

    A plain object and no configurable resource: Dagster shows a resource's configuration to whoever opens its UI,
    and the database's address holds a password.
    """

    paths: PathSettings = field(default_factory=PathSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    pipeline: PipelineSettings = field(default_factory=PipelineSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    history: HistorySettings = field(default_factory=HistorySettings)

    def database_url(self) -> str:
        """Where the database is at this moment: the bundled one may come back on another port."""
        return self.database.resolve(self.paths)
