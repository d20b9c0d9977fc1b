"""`make demo`: from an empty folder to a running platform with real data, trained models and an API key.

Every step is idempotent, so that a later call continues an interrupted one. The modules of this package:

    demo, demo_state, demo_stripe, demo_scenarios       the demo's steps, what they keep, its Stripe, its scenarios
    demo_ray                                            its Ray cluster, with COMPUTE=ray
    demo_announcement                                   what the demo prints
    processes, supervision, launch, ports               the programs of one machine, their supervisor, their start
    postgres_server, postgres_cluster, os_user          the bundled PostgreSQL, its data, the user that it runs as
    torch_index                                         the package index that `make install` takes torch from
    vulnerabilities, bill_of_materials                  what is known of the locked packages, what a server runs
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import psycopg
from pydantic import Field
from rich.console import Console

from configs.addresses import PortSettings
from configs.billing import BillingSettings
from configs.console_guard import OPERATOR, ConsoleSettings
from configs.files import keep_state_private, write_private
from configs.local.demo_announcement import announcement
from configs.local.demo_ray import DemoRay
from configs.local.demo_scenarios import create_scenarios
from configs.local.demo_state import DemoState
from configs.local.demo_stripe import DemoStripe
from configs.local.ports import refusal_of_port, unused_port
from configs.local.processes import Program, programs, shared_environment, write_configuration
from configs.local.supervision import Supervisor
from configs.metrics import METRICS_PATH
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings, Settings

ROOT = Path(__file__).resolve().parents[2]
TENANT = "demo"
EMAIL = "admin@demo.example"
DATASET = "movielens-100k"
EXAMPLE_USER = "196"
READY_PATHS = {
    "api": "/health/ready",
    "serving": "/readyz",
    "mlflow": "/health",
    "dagster": "/server_info",
    "stripe": "/",
}

console = Console(stderr=True)


class DemoSettings(Settings):
    """Settings of the demo beside ports and paths."""

    train_seconds: float = Field(default=60.0, alias="DEMO_TRAIN_SECONDS", gt=0, description="per model family")
    search_minutes: float = Field(
        default=40.0, alias="DEMO_SEARCH_MINUTES", ge=0, description="of searches for hyper-parameters in 24 hours"
    )
    start_seconds: float = Field(
        default=120.0, alias="DEMO_START_SECONDS", gt=0, description="bound on the start of a server"
    )


class Demo:
    """The steps of the demo over one state folder."""

    def __init__(self, paths: PathSettings, ports: PortSettings, settings: DemoSettings) -> None:
        self.paths = paths
        self.ports = ports
        self.settings = settings
        paths.root.mkdir(parents=True, exist_ok=True)
        self.state = DemoState(paths.root / "demo.state")
        self.stripe = DemoStripe(ports, BillingSettings(), self.state.keep)
        self.ray = DemoRay(paths, self.state.get, self.state.put)
        self.servers = [name for name in READY_PATHS if name != "stripe" or not self.stripe.real]
        self.urls = {name: ports.url(name) for name in self.servers}
        self.supervisor = Supervisor(paths, ROOT)

    def run(self) -> int:
        """Start everything, print how to use it, and wait until the supervisor ends. Returns the exit status."""
        attached = self.supervisor.running()
        if attached:
            self._refuse_other_choices()
        else:
            self._refuse_taken_ports()
            self._choose_metrics_port()
            self.ray.prepare()
            write_configuration(self._programs(), self.paths, ROOT)
            self.state.put("STRIPE", self.stripe.kind)
            self.state.put("COMPUTE", self.ray.kind)
            self.supervisor.start()
        try:
            self._step("PostgreSQL", self._await_database)
            self._step("migrations", lambda: self._api("migrate"))
            self._step("tenant, admin and key", self._create_identities)
            self._once("data", f"data set {DATASET}", lambda: self._api("load-dataset", DATASET, "--tenant", TENANT))
            if not self.stripe.real:
                self._step("stand-in for Stripe", self._start_stripe)
            self._step("MLflow, model server and API", lambda: self._start("mlflow", "serving", "api"))
            if self.ray.runs_here:
                self._step(f"Ray on {self.ray.address}", self._start_ray)
            self._once("pipeline", "pipeline: lake, features, models, release", self._run_pipeline)
            self._step("Dagster", lambda: self._start("dagster"))
            self._step("first recommendation", self._await_recommendation)
            self._step("scenarios", self._create_scenarios)
            values = self._write_environment()
            print(
                announcement(
                    self.paths,
                    self.urls,
                    values,
                    dataset=DATASET,
                    user=EXAMPLE_USER,
                    stripe=self.stripe.announced,
                    attached=attached,
                ),
                flush=True,
            )
            return 0 if attached else self.supervisor.wait()
        finally:
            if not attached:
                self.supervisor.stop()
                self.ray.remove_folder()

    def _programs(self) -> list[Program]:
        secret = self.state.keep("JWT_SECRET", lambda: secrets.token_urlsafe(48))
        metrics = {"METRICS_PORT": str(self._metrics_port()), "METRICS_HOST": self.ports.metrics_host}
        api = {"JWT_SECRET": secret, "REGISTRATION_TENANT": TENANT, **metrics, **self.stripe.api_environment}
        pipeline = {
            "PIPELINE_AUTOMATION": "true",
            "TRAIN_MAX_SECONDS": str(self.settings.train_seconds),
            "SEARCH_MINUTES_PER_DAY": str(self.settings.search_minutes),
            **self.ray.pipeline_environment,
        }
        stripe = self.stripe.program_environment
        first, *others = programs(self.ports, self.paths, api=api, pipeline=pipeline, stripe=stripe)
        return [first, *self.ray.programs, *others]

    def _metrics_port(self) -> int:
        return self.ports.metrics or int(self.state.get("METRICS_PORT"))

    def _metrics_url(self) -> str:
        ports = self.ports.model_copy(update={"metrics": self._metrics_port()})
        return ports.url("metrics") + METRICS_PATH

    def _choose_metrics_port(self) -> None:
        """Without a setting, the API's metrics are on a free port, which is kept as long as it stays free."""
        kept = self.state.get("METRICS_PORT")
        if self.ports.metrics is None and (not kept or refusal_of_port(self.ports.metrics_host, int(kept))):
            self.state.put("METRICS_PORT", str(unused_port(self.ports.metrics_host)))

    def _refuse_taken_ports(self) -> None:
        servers = [*self.servers, *(["metrics"] if self.ports.metrics is not None else [])]
        for name in servers:
            port = getattr(self.ports, name)
            if error := refusal_of_port(self.ports.host_of(name), port):
                variable = f"{name.upper()}_PORT"
                raise SystemExit(
                    f"port {port} is not free ({error.strerror}): run `make demo {variable}=<another port>`"
                ) from error

    def _refuse_other_choices(self) -> None:
        """Raise SystemExit where the demo that runs has another Stripe or engine than this terminal asks for."""
        for key, use, kind, variables in (
            ("STRIPE", "for Stripe", self.stripe.kind, "STRIPE_API_KEY"),
            ("COMPUTE", "for the pipelines' tasks", self.ray.kind, "COMPUTE and RAY_ADDRESS"),
        ):
            running = self.state.get(key)
            if running and running != kind:
                raise SystemExit(
                    f"the demo that runs uses {running} {use}, this terminal {kind}: "
                    f"stop the other first, or give {variables} the same value here"
                )

    def _await_database(self) -> None:
        def connects() -> bool:
            try:
                with psycopg.connect(DatabaseSettings().resolve(self.paths), connect_timeout=2):
                    return True
            except (FileNotFoundError, psycopg.OperationalError):
                return False

        self._await("postgres", connects)

    def _create_identities(self) -> None:
        password = self.state.keep("ADMIN_PASSWORD", lambda: secrets.token_urlsafe(18))
        if TENANT not in self._api("list-tenants", capture=True).split():
            self._api("create-tenant", "--id", TENANT, "--plan", "unlimited", capture=True)
        if not self.state.get("ADMIN_CREATED"):
            admin = ("create-admin", "--tenant", TENANT, "--email", EMAIL)
            self._api(*admin, capture=True, environment={"PORTAL_PASSWORD": password})
            self.state.put("ADMIN_CREATED", "yes")
        self.state.keep(
            "API_KEY",
            lambda: self._api("create-key", "--tenant", TENANT, "--name", "demo", "--rate-limit", "none", capture=True),
        )

    def _start_stripe(self) -> None:
        self._start("stripe")
        self._api("create-prices", capture=True, environment=self.stripe.api_environment)

    def _start_ray(self) -> None:
        self.supervisor.start_program("ray")
        self._await("ray", self.ray.is_up)

    def _run_pipeline(self) -> None:
        environment = {
            "MLFLOW_TRACKING_URI": self.urls["mlflow"],
            "TRAIN_MAX_SECONDS": str(self.settings.train_seconds),
            **self.ray.pipeline_environment,
            **ConsoleSettings().tracking_environment,
        }
        self._call([sys.executable, "-m", "pipelines", "run", "--tenant", TENANT], environment)

    def _start(self, *names: str) -> None:
        for name in names:
            self.supervisor.start_program(name)
        for name in names:
            self._await(name, partial(_is_up, self.urls[name] + READY_PATHS[name]))

    def _await_recommendation(self) -> None:
        def from_a_model() -> bool:
            answer = httpx.post(
                self.urls["api"] + "/api/v1/recommend",
                headers={"X-API-Key": self.state.get("API_KEY")},
                json={"userId": EXAMPLE_USER, "count": 3},
                timeout=10,
            )
            answer.raise_for_status()
            return bool(answer.json()) and "X-Recommendation-Degraded" not in answer.headers

        self._await("serving", from_a_model)

    def _create_scenarios(self) -> None:
        """Once: one that its owner deletes stays deleted."""
        if not self.state.get("SCENARIOS"):
            create_scenarios(self.urls["api"], EMAIL, self.state.get("ADMIN_PASSWORD"))
            self.state.put("SCENARIOS", "made")

    def _write_environment(self) -> dict[str, str]:
        """Write demo.env, and return its content."""
        values = {
            **{f"{name.upper()}_URL": self.urls[name] for name in ("api", "serving", "dagster", "mlflow")},
            "METRICS_URL": self._metrics_url(),
            "API_KEY": self.state.get("API_KEY"),
            "ADMIN_EMAIL": EMAIL,
            "ADMIN_PASSWORD": self.state.get("ADMIN_PASSWORD"),
            "TENANT_ID": TENANT,
            **self.stripe.exported,
        }
        lines = [f"{key}={value}\n" for key, value in values.items()]
        write_private(self.paths.root / "demo.env", "".join(lines))
        return values

    def _step(self, title: str, action: Callable[[], object]) -> None:
        started = time.monotonic()
        with console.status(f"{title} ..."):
            action()
        console.print(f"[green]done[/] {title} [dim]{time.monotonic() - started:.1f} s[/]")

    def _once(self, key: str, title: str, action: Callable[[], object]) -> None:
        """Run a long step, which shows its own progress, unless an earlier call has finished it."""
        if self.state.get(key):
            console.print(f"[green]kept[/] {title}")
            return
        started = time.monotonic()
        console.print(f"[bold]{title}[/]")
        action()
        self.state.put(key, "done")
        console.print(f"[green]done[/] {title} [dim]{time.monotonic() - started:.1f} s[/]")

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.settings.start_seconds
        while not ready():
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} did not become ready; its log is {self.paths.logs / f'{name}.log'}")
            time.sleep(0.2)

    def _api(self, *arguments: str, capture: bool = False, environment: dict[str, str] | None = None) -> str:
        return self._call([sys.executable, "-m", "api", *arguments], environment or {}, capture)

    def _call(self, command: list[str], environment: dict[str, str], capture: bool = False) -> str:
        result = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **shared_environment(self.paths), **environment},
            stdout=subprocess.PIPE if capture else None,
            stderr=subprocess.PIPE if capture else None,
            text=True,
            check=False,
        )
        if result.returncode:
            shown = f"\n{result.stderr}" if capture else ""
            raise SystemExit(f"`{' '.join(command[1:4])}` failed with status {result.returncode}{shown}")
        return result.stdout.strip() if capture else ""


def _is_up(url: str) -> bool:
    password = ConsoleSettings().password_text
    login = None if password is None else (OPERATOR, password)  # the consoles ask for it, the others ignore it
    try:
        return httpx.get(url, timeout=5, auth=login).is_success
    except httpx.TransportError:
        return False


def main() -> None:
    """Run the demo in the foreground. SIGTERM ends it as Ctrl-C does, even where the shell has SIGINT ignored."""
    keep_state_private()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(Demo(PathSettings(), PortSettings(), DemoSettings()).run())
    except KeyboardInterrupt:
        console.print("stopped")
        sys.exit(130)


if __name__ == "__main__":
    main()
