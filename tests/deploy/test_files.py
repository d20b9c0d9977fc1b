"""No image is built and no unit started here, so that what the files of `configs/deploy` name is checked instead:
paths, command lines, ports and settings."""

import re
import shlex
import shutil
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from configs.addresses import PortSettings
from configs.local.processes import DRAIN_SECONDS, FLUSH_SECONDS
from tests.deploy.commands import PYTHON, logical_lines, parse_by_program
from tests.deploy.compose_schema import COMPOSE
from tests.fixtures.settings import all_aliases

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "deploy"
UNITS = sorted((FOLDER / "systemd").glob("*.service"))
SERVERS = {"api": 8080, "serving": 3000, "dagster": 3001, "mlflow": 5000}
METRICS = 9464
TOOLS = {
    *("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "HOME", "DAGSTER_HOME", "OMP_WAIT_POLICY"),
    *("BENTOML_DO_NOT_TRACK", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "MLFLOW_DISABLE_TELEMETRY"),
}
"""Variables of Python, Dagster, OpenMP, BentoML and MLflow that the files set."""
OTHERS = {"postgres", "redis", "proxy"}
"""Services whose images are not ours."""


def compose() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "docker-compose.yml").read_text())


def services() -> dict[str, dict[str, Any]]:
    return compose()["services"]


def ours() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services().items() if name not in OTHERS}


def variables_of(path: Path) -> set[str]:
    """What an environment file sets; a line that is commented out counts."""
    return set(re.findall(r"^#?([A-Z][A-Z_]+)=", path.read_text(), re.MULTILINE))


def unit(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in logical_lines(path):
        if not line.startswith("["):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_usual_ports_are_those_of_the_settings() -> None:
    defaults = {name: field.default for name, field in PortSettings.model_fields.items()}
    assert {name: defaults[name] for name in SERVERS} == SERVERS


def test_the_image_is_made_of_what_is_there_by_one_lock_and_runs_as_nobody() -> None:
    lines = logical_lines(FOLDER / "Dockerfile")
    ignored = logical_lines(ROOT / ".dockerignore")
    assert ignored[0] == "*"
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY") and "--from" not in line]
    for source in (source for sources in copied for source in sources):
        assert (ROOT / source).exists() and source.partition("/")[0] in let_in, source
    assert all((ROOT / name).exists() for name in let_in)
    assert {"api", "configs", "feature_store", "pipelines", "serving", "training", "requirements.lock"} <= let_in
    assert not any("dev" in source for sources in copied for source in sources)
    (user,) = [line.split()[1] for line in lines if line.startswith("USER")]
    assert user.partition(":")[0] == "10001"
    (exposed,) = [line.split()[1:] for line in lines if line.startswith("EXPOSE")]
    assert sorted(map(int, exposed)) == sorted([*SERVERS.values(), METRICS])
    images = {line.split()[1] for line in lines if line.startswith("FROM")}
    assert len(images) == 1 and re.fullmatch(r"python:3\.\d+-slim-\w+", images.pop())


def test_the_image_starts_the_api_and_asks_whether_it_is_ready() -> None:
    lines = logical_lines(FOLDER / "Dockerfile")
    entry, command = (yaml.safe_load(line.partition(" ")[2]) for line in lines if re.match("(ENTRYPOINT|CMD) ", line))
    assert entry == [PYTHON, "-m"]
    parse_by_program([*entry, *command])
    (check,) = [line.partition("CMD")[2] for line in lines if line.startswith("HEALTHCHECK")]
    parse_by_program(yaml.safe_load(check))
    for line in lines:
        if line.startswith("ENV"):
            assert set(re.findall(r"([A-Z_]+)=", line)) <= all_aliases() | TOOLS


def test_the_composition_is_one_that_compose_accepts() -> None:
    errors = [
        f"{'/'.join(map(str, each.instance_path))}: {each.message}"
        for each in jsonschema_rs.validator_for(COMPOSE).iter_errors(compose())
    ]
    assert not errors


@pytest.mark.parametrize("name", sorted(ours()))
def test_a_service_of_ours_runs_a_command_that_there_is_without_rights(name: str) -> None:
    service = ours()[name]
    parse_by_program([PYTHON, "-m", *service["command"]])
    if "test" in (check := service["healthcheck"]):
        parse_by_program(check["test"][1:])
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert any(each.startswith("/tmp:") for each in service["tmpfs"])
    named = set(service.get("environment", {}))
    for file in service.get("env_file", []):
        named |= variables_of(FOLDER / file)
    assert named <= all_aliases() | TOOLS, named - all_aliases() - TOOLS


def test_services_reach_each_other_at_the_ports_on_which_they_listen() -> None:
    all_services = services()
    listening = {
        "models": {3000},
        "mlflow": {5000},
        "pipelines-web": {3001},
        "api-a": {8080, METRICS},
        "api-b": {8080, METRICS},
        "redis": {6379},
    }
    for name, service in all_services.items():
        environment = service.get("environment", {})
        for host, port in re.findall(r"\b([a-z][a-z-]+):(\d+)", " ".join(environment.values())):
            assert int(port) in listening[host], f"{name} asks {host}:{port}"
            assert set(service["networks"]) & set(all_services[host]["networks"])
    for name, variable in (("models", "SERVING"), ("mlflow", "MLFLOW"), ("pipelines-web", "DAGSTER")):
        environment = all_services[name]["environment"]
        assert environment[f"{variable}_HOST"] == "0.0.0.0"
        assert {int(environment[f"{variable}_PORT"])} == listening[name]
    assert f"--port={5000}" in all_services["mlflow"]["command"]


def test_the_api_trusts_the_proxys_address_and_no_other() -> None:
    document = compose()
    (network,) = document["networks"]["outer"]["ipam"]["config"]
    address = services()["proxy"]["networks"]["outer"]["ipv4_address"]
    assert ip_address(address) in ip_network(network["subnet"])
    assert services()["api-a"]["environment"]["TRUSTED_PROXIES"] == address
    published = {name for name, service in services().items() if "ports" in service}
    assert published == {"proxy"}
    assert document["networks"]["inner"] == {"internal": True}
    for name in ("postgres", "redis", "models"):
        assert services()[name]["networks"] == ["inner"]


def test_what_is_mounted_is_there_and_each_file_of_settings_is_used() -> None:
    document, used = compose(), set()
    for service in services().values():
        used |= set(service.get("env_file", []))
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in document["volumes"] or (FOLDER / source).is_file(), source
        assert set(service.get("depends_on", {})) <= set(services())
    assert {FOLDER / each for each in used} == set((FOLDER / "env").glob("*.env"))


def test_secrets_reach_those_who_need_them() -> None:
    holders: dict[str, set[str]] = {}
    for name, service in services().items():
        for file in service.get("env_file", []):
            for variable in variables_of(FOLDER / file):
                holders.setdefault(variable, set()).add(name)
    assert holders["JWT_SECRET"] == holders["STRIPE_API_KEY"] == {"api-a", "api-b"}
    assert holders["DATABASE_OWNER_URL"] == {"migrate"}
    assert holders["POSTGRES_PASSWORD"] == {"postgres"}
    pipelines = {"pipelines-code", "pipelines-web", "pipelines-daemon"}
    assert holders["OPERATOR_PASSWORD"] == pipelines | {"mlflow"}
    assert "models" not in set().union(*holders.values())


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_runs_a_command_that_there_is_with_settings_that_are_read(path: Path) -> None:
    found = unit(path)
    (command,) = found["ExecStart"]
    words = [word.replace("%i", "8080") for word in shlex.split(command)]
    parse_by_program(words)
    named = {
        pair.partition("=")[0]
        for line in [*found["Environment"], *found.get("Environment", [])]
        for pair in shlex.split(line)
    }
    for file in found.get("EnvironmentFile", []):
        example = FOLDER / "env" / Path(file).name
        assert Path(file).parent == Path("/etc/recommendai")
        named |= variables_of(example)
    assert named <= all_aliases() | TOOLS, named - all_aliases() - TOOLS
    assert found["User"] == ["recommendai"]


def test_units_stop_as_late_as_their_programs_need() -> None:
    api = unit(FOLDER / "systemd" / "recommendai-api@.service")
    assert int(api["TimeoutStopSec"][0]) > DRAIN_SECONDS + FLUSH_SECONDS
    assert int(services()["api-a"]["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS + FLUSH_SECONDS


def test_prometheus_asks_where_the_units_listen() -> None:
    document = yaml.safe_load((ROOT / "configs" / "observability" / "prometheus.yml").read_text())
    targets = {
        job["job_name"]: {
            int(target.rpartition(":")[2]) for each in job["static_configs"] for target in each["targets"]
        }
        for job in document["scrape_configs"]
    }
    assert targets == {"api": {18080, 18081}, "model-server": {3000}, "pipelines": {3001}}
    (environment,) = [
        line for line in unit(FOLDER / "systemd" / "recommendai-api@.service")["Environment"] if "%i" in line
    ]
    assert "METRICS_PORT=1%i" in environment


@pytest.mark.service
def test_systemd_reads_the_units_and_finds_little_exposure(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed: `apt-get install systemd`")
    for path in (FOLDER / "systemd").iterdir():
        text = path.read_text().replace(PYTHON, "/bin/true").replace("/opt/recommendai", "/tmp")
        (tmp_path / path.name).write_text(re.sub("^(User|Group)=.*$", "", text, flags=re.MULTILINE))
    names = [path.name for path in UNITS]
    verified = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", *names, "recommendai.target"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (verified.returncode, verified.stderr) == (0, "")
    for name in names:
        judged = [analyze, "security", "--offline=true", "--threshold=25", "--no-pager", name.replace("@.", "@8080.")]
        (tmp_path / name.replace("@.", "@8080.")).write_text((FOLDER / "systemd" / name).read_text())
        result = subprocess.run(judged, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-300:]
