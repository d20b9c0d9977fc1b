"""Where the programs of one machine listen."""

from ipaddress import ip_address

from pydantic import Field

from configs.settings import Settings

LOOPBACK = "127.0.0.1"


class PortSettings(Settings):
    """Addresses of the processes that run on one machine. All listen on loopback unless a setting says otherwise."""

    host: str = Field(default=LOOPBACK, alias="BIND_HOST", description="address of the API, and of nothing else")
    serving_host: str = Field(default=LOOPBACK, alias="SERVING_HOST", description="address of the model server")
    dagster_host: str = Field(
        default=LOOPBACK, alias="DAGSTER_HOST", description="beyond loopback only with OPERATOR_PASSWORD"
    )
    mlflow_host: str = Field(
        default=LOOPBACK, alias="MLFLOW_HOST", description="beyond loopback only with OPERATOR_PASSWORD"
    )
    api: int = Field(default=8080, alias="API_PORT", description="of the API")
    serving: int = Field(default=3000, alias="SERVING_PORT", description="of the model server")
    dagster: int = Field(default=3001, alias="DAGSTER_PORT", description="of Dagster's console")
    mlflow: int = Field(default=5000, alias="MLFLOW_PORT", description="of MLflow")
    stripe: int = Field(default=3002, alias="STRIPE_PORT", description="of the demo's stand-in for Stripe")
    metrics_host: str = Field(default=LOOPBACK, alias="METRICS_HOST", description="address of the API's metrics")
    metrics: int | None = Field(
        default=None, alias="METRICS_PORT", description="of the API's metrics; None: off, and in the demo a free port"
    )
    postgres: int | None = Field(
        default=None, alias="POSTGRES_PORT", description="None: a free port, which is chosen once and kept"
    )

    def host_of(self, program: str) -> str:
        """The address on which a program listens."""
        hosts = {
            "api": self.host,
            "serving": self.serving_host,
            "dagster": self.dagster_host,
            "mlflow": self.mlflow_host,
            "metrics": self.metrics_host,
        }
        return hosts.get(program, LOOPBACK)

    def url(self, program: str) -> str:
        """The URL of a program for a client on this machine."""
        host = self.host_of(program)
        reached = {"0.0.0.0": LOOPBACK, "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"http://{reached}:{getattr(self, program)}"

    def beyond_loopback(self, program: str) -> bool:
        """Whether other machines can reach a program."""
        try:
            return not ip_address(self.host_of(program)).is_loopback
        except ValueError:  # a name
            return self.host_of(program) != "localhost"
