"""Where MLflow keeps runs and registered models."""

from pydantic import Field

from configs.settings import PathSettings, Settings


class TrackingSettings(Settings):
    """MLflow. Without a URI, a SQLite store in the state folder."""

    uri: str | None = Field(
        default=None, alias="MLFLOW_TRACKING_URI", description="of a server; None: a SQLite store in the state folder"
    )

    def resolve(self, paths: PathSettings) -> str:
        return self.uri or f"sqlite:///{paths.mlflow / 'mlflow.db'}"

    def store(self, paths: PathSettings) -> str | None:
        """The address of MLflow's database, where this machine reaches it: the state folder's, behind a server too."""
        if self.uri is not None and not self.uri.startswith("http"):
            return self.uri
        path = paths.mlflow / "mlflow.db"
        return f"sqlite:///{path}" if path.exists() else None
