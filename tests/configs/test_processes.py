"""The supervisor's configuration, the launcher that ends leftover processes, and the demo's state."""

import configparser
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr
from stripe import StripeClient

from configs.addresses import PortSettings
from configs.billing import BillingSettings
from configs.local.demo import Demo, DemoSettings
from configs.local.demo_state import DemoState
from configs.local.demo_stripe import DemoStripe
from configs.local.launch import survivors
from configs.local.processes import (
    DRAIN_SECONDS,
    SOCKET_PATH_LIMIT,
    Program,
    programs,
    socket_path,
    write_configuration,
)
from configs.local.supervision import STOP_SECONDS, Supervisor
from configs.plans import plans
from configs.postgres import DatabaseSettings
from configs.priority import PrioritySettings
from configs.settings import PathSettings
from tests.fixtures.platform import answers, free_ports, wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def paths(tmp_path: Path) -> PathSettings:
    return PathSettings(state_dir=tmp_path / "with space and 100%")


def rendered(paths: PathSettings) -> configparser.RawConfigParser:
    all_programs = programs(
        PortSettings(api=18080),
        paths,
        api={"JWT_SECRET": "per%cent"},
        pipeline={"PIPELINE_AUTOMATION": "true"},
        stripe={"STRIPE_API_KEY": "sk_test_demo", "STRIPE_WEBHOOK_SECRET": "whsec_demo"},
    )
    parser = configparser.RawConfigParser()
    parser.read(write_configuration(all_programs, paths, ROOT))
    return parser


def test_programs_are_those_of_the_design_and_come_back_when_they_die(paths: PathSettings) -> None:
    parser = rendered(paths)
    names = {section.partition(":")[2] for section in parser.sections() if section.startswith("program:")}
    assert names == {"postgres", "mlflow", "serving", "api", "dagster", "stripe"}
    assert all(parser[f"program:{name}"]["autorestart"] == "true" for name in names)
    without = programs(PortSettings(), paths, api={}, pipeline={})
    assert {program.name for program in without} == names - {"stripe"}


def test_bind_host_opens_the_api_alone(monkeypatch: pytest.MonkeyPatch, paths: PathSettings) -> None:
    everywhere = "0.0.0.0"  # nothing listens here
    monkeypatch.setenv("BIND_HOST", everywhere)
    ports = PortSettings()
    assert ports.host == everywhere
    assert {ports.serving_host, ports.dagster_host, ports.mlflow_host, ports.metrics_host} == {"127.0.0.1"}
    assert not any(ports.beyond_loopback(name) for name in ("serving", "dagster", "mlflow"))
    given = [part for each in programs(ports, paths, api={}, pipeline={}, stripe={}) for part in each.command]
    assert everywhere not in given


def test_every_log_is_rotated_and_none_lies_elsewhere(paths: PathSettings) -> None:
    parser = rendered(paths)
    logs = [(parser["supervisord"], "logfile")]
    logs += [(parser[name], "stdout_logfile") for name in parser.sections() if name.startswith("program:")]
    for section, option in logs:
        assert Path(section[option].replace("%%", "%")).parent == paths.logs
        assert section[f"{option}_maxbytes"].endswith("MB")
        assert section.getint(f"{option}_backups") == 2
    assert all(section.getboolean("redirect_stderr") for section, _ in logs[1:])


def test_the_supervisor_waits_longer_than_the_api_drains(paths: PathSettings) -> None:
    """Stopped under load, the API first answers what it has, and then writes the last counts and impressions."""
    parser = rendered(paths)
    waits = {name: parser[name].getint("stopwaitsecs") for name in parser.sections() if name.startswith("program:")}
    assert waits["program:api"] > DRAIN_SECONDS
    assert sum(waits.values()) < STOP_SECONDS


def test_secrets_reach_the_api_alone_and_the_file_is_private(paths: PathSettings) -> None:
    parser = rendered(paths)
    holders = [section for section in parser.sections() if "JWT_SECRET" in parser[section].get("environment", "")]
    assert holders == ["program:api"]
    assert "per%%cent" in parser["program:api"]["environment"]
    assert stat.S_IMODE((paths.root / "supervisord.conf").stat().st_mode) == 0o600


def test_socket_moves_when_the_state_folder_is_deep(tmp_path: Path) -> None:
    deep = PathSettings(state_dir=tmp_path / ("d" * 120))
    assert len(str(socket_path(deep))) <= SOCKET_PATH_LIMIT
    assert socket_path(deep) != socket_path(PathSettings(state_dir=tmp_path / ("e" * 120)))
    shallow = PathSettings(state_dir=Path("/s"))
    assert socket_path(shallow).parent == shallow.root


@pytest.mark.service
def test_a_launched_program_makes_files_that_its_user_alone_can_read(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "configs.local.launch", "any", "/bin/sh", "-c", "umask"]
    environment = {**os.environ, "RECOMMENDAI_STATE_DIR": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "0077"


@pytest.mark.service
def test_launch_ends_the_children_that_a_killed_parent_left(tmp_path: Path) -> None:
    """A parent killed outright leaves a child that holds its port; the next launch ends the child first."""
    environment = {**os.environ, "RECOMMENDAI_STATE_DIR": str(tmp_path)}
    sleeper = f"{sys.executable} -c 'import time; time.sleep(60)' & wait"

    def launch() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "configs.local.launch", "sleeper", "/bin/sh", "-c", sleeper]
        return subprocess.Popen(command, cwd=ROOT, env=environment, process_group=0)

    identity = f"sleeper@{tmp_path}"
    first = launch()
    wait_until("parent and child", lambda: len(survivors(identity)) == 2)
    first.kill()
    first.wait()
    (orphan,) = survivors(identity)
    second = launch()
    wait_until("the second pair", lambda: len(survivors(identity)) == 2 and second.pid in survivors(identity))
    assert orphan not in survivors(identity)
    os.killpg(second.pid, signal.SIGKILL)
    second.wait()


def test_programs_that_answer_come_before_those_in_the_background(paths: PathSettings) -> None:
    background = {
        program.name for program in programs(PortSettings(), paths, api={}, pipeline={}) if program.is_background
    }
    assert background == {"mlflow", "dagster"}


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Callable[[list[Program]], Supervisor]]:
    """Starts these programs under a real supervisord."""
    with ExitStack() as stack:

        def start(all_programs: list[Program]) -> Supervisor:
            paths = PathSettings(state_dir=tmp_path)
            write_configuration(all_programs, paths, ROOT)
            supervisor = Supervisor(paths, ROOT)
            stack.callback(supervisor.stop)
            supervisor.start(wait_seconds=180)
            for program in all_programs:
                supervisor.start_program(program.name)
            return supervisor

        yield start


@pytest.mark.service
def test_a_program_in_the_background_and_its_children_run_with_low_priority(
    supervised: Callable[[list[Program]], Supervisor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BACKGROUND_NICENESS")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    report = "import os; print(os.getpriority(os.PRIO_PROCESS, 0), flush=True)"
    child = "import subprocess, sys, time; subprocess.run([sys.executable, '-c', sys.argv[1]]); time.sleep(600)"
    command = [sys.executable, "-c", child, report]
    supervised([Program("answering", command), Program("working", command, is_background=True)])
    logs = {name: tmp_path / "logs" / f"{name}.log" for name in ("answering", "working")}
    wait_until("both report", lambda: all(log.exists() and log.read_text().strip() for log in logs.values()))
    assert {name: int(log.read_text()) for name, log in logs.items()} == {
        "answering": own,
        "working": max(own, PrioritySettings().niceness),
    }


@pytest.mark.service
@pytest.mark.parametrize("package", ["pipelines", "training"])
@pytest.mark.parametrize("niceness", [None, 15])
def test_trainings_and_pipelines_run_with_low_priority(
    package: str, niceness: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts them: here the command's own process says so, after its command has ended."""
    monkeypatch.delenv("BACKGROUND_NICENESS")
    if niceness is not None:
        monkeypatch.setenv("BACKGROUND_NICENESS", str(niceness))
    code = (
        "import atexit, os, runpy, sys; atexit.register(lambda: print(os.getpriority(os.PRIO_PROCESS, 0)));"
        f"sys.argv = ['{package}', '--help']; runpy.run_module('{package}', run_name='__main__', alter_sys=True)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert int(result.stdout.split()[-1]) == max(niceness or 10, os.getpriority(os.PRIO_PROCESS, 0))


def test_demo_state_makes_a_secret_once_and_keeps_it(tmp_path: Path) -> None:
    state = DemoState(tmp_path / "demo.state")
    made = state.keep("KEY", lambda: "first=value")
    assert made == "first=value"
    again = DemoState(tmp_path / "demo.state")
    assert again.keep("KEY", lambda: "second") == "first=value"
    assert again.get("absent") == ""


@pytest.mark.service
def test_stand_in_for_stripe_runs_as_the_demo_starts_it(tmp_path: Path) -> None:
    """The program's own command and secrets, without what supervises it."""
    (port,) = free_ports(1)
    ports = PortSettings(stripe=port)
    stripe = DemoStripe(ports, BillingSettings(api_key=None), DemoState(tmp_path / "demo.state").keep)
    found = programs(ports, PathSettings(state_dir=tmp_path), api={}, pipeline={}, stripe=stripe.program_environment)
    (program,) = [each for each in found if each.name == "stripe"]
    environment = {**os.environ, **program.environment}
    process = subprocess.Popen(program.command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until("the stand-in", lambda: answers(stripe.url))
        key = stripe.exported["STRIPE_API_KEY"]
        client = StripeClient(key, base_addresses={"api": stripe.exported["STRIPE_API_BASE"]})
        assert client.v1.customers.create({"email": "a@b.example"}).email == "a@b.example"
        assert stat.S_IMODE((tmp_path / "stripe.json").stat().st_mode) == 0o600
    finally:
        process.terminate()
        process.wait(20)


def test_demo_knows_a_real_key_from_its_own(tmp_path: Path) -> None:
    """demo.env holds the stand-in's key: a shell that exports it does not turn the stand-in off."""
    keep, ports = DemoState(tmp_path / "demo.state").keep, PortSettings(api=18080, stripe=13002)
    own = DemoStripe(ports, BillingSettings(api_key=None), keep)
    assert not own.real
    assert own.api_environment == {
        **own.exported,
        "STRIPE_API_BASE": "http://127.0.0.1:13002",
        "BILLING_RETURN_URL": "http://127.0.0.1:18080/docs",
    }
    again = DemoStripe(ports, BillingSettings(api_key=SecretStr(own.exported["STRIPE_API_KEY"])), keep)
    assert not again.real
    assert again.exported == own.exported
    settings = BillingSettings(
        api_key=SecretStr("sk_test_of_somebody"), webhook_secret=SecretStr("whsec_x"), return_url="https://shop.example"
    )
    real = DemoStripe(ports, settings, keep)
    assert real.real
    assert real.program_environment is None
    assert real.api_environment == {}
    assert real.exported == {"STRIPE_WEBHOOK_SECRET": "whsec_x", "STRIPE_API_BASE": "https://api.stripe.com"}


@pytest.mark.service
def test_demo_that_runs_with_another_stripe_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRIPE_API_KEY", raising=False)
    paths = PathSettings(state_dir=tmp_path)
    DemoState(tmp_path / "demo.state").put("STRIPE", "your account")
    write_configuration([], paths, ROOT)
    supervisor = Supervisor(paths, ROOT)
    supervisor.start()
    try:
        with pytest.raises(SystemExit, match="uses your account for Stripe, this terminal the stand-in"):
            Demo(paths, PortSettings(), DemoSettings()).run()
        assert supervisor.running()
    finally:
        supervisor.stop()


def test_demo_names_the_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        api, serving, mlflow, stripe = free_ports(4)  # a demo may run on the usual ones
        ports = PortSettings(api=api, serving=serving, dagster=port, mlflow=mlflow, stripe=stripe)
        demo = Demo(PathSettings(state_dir=tmp_path), ports, DemoSettings())
        with pytest.raises(SystemExit, match=rf"port {port} is not free .*DAGSTER_PORT"):
            demo.run()


def test_without_a_database_the_message_says_what_to_do(paths: PathSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(FileNotFoundError, match="make demo"):
        DatabaseSettings().resolve(paths)


def test_plans_are_those_of_the_reference() -> None:
    starter, growth = plans()["plan-starter"], plans()["plan-growth"]
    assert (starter.monthly_price, starter.annual_price) == (49, 470)
    assert (starter.request_limit, starter.item_limit, starter.user_limit) == (10_000, 1_000, 500)
    assert (growth.monthly_price, growth.annual_price) == (149, 1_430)
    assert (growth.request_limit, growth.item_limit, growth.user_limit) == (100_000, 10_000, 5_000)
    free, unlimited = plans()["free"], plans()["unlimited"]
    assert (free.request_limit, free.item_limit, free.user_limit) == (1_000, 100, 100)
    assert (unlimited.request_limit, unlimited.item_limit, unlimited.user_limit) == (None, None, None)
    assert not free.listed
    assert not unlimited.listed
