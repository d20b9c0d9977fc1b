"""Keys that sign tokens are rotated without logging anybody out, and without a restart."""

import base64
import hmac
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest

from api.auth.signing_keys import MAX_KEYS, MissingSecretError, SigningKey, SigningKeys, rotate_signing_key
from configs.auth import AuthSettings
from configs.settings import PathSettings
from tests.api.conftest import SECRET
from tests.fixtures.live import ROOT, api_process
from tests.fixtures.portal import PASSWORD, ROOMY, Portal, bearer, running_portal

ADA = "ada@acme.example"
AUTH = AuthSettings(jwt_secret=SECRET)
DAY = 86_400


def kid_of(token: str) -> str | None:
    return jwt.get_unverified_header(token).get("kid")


def eventually(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def status(portal: Portal, token: str) -> int:
    return portal.client.get("/auth/v1/user", headers=bearer(token)).status_code


def rotated(portal: Portal, **options: Any) -> str:
    """The id of a new key, once the running application signs with it."""
    configuration = portal.client.app.state.configuration  # type: ignore[attr-defined]
    keys: SigningKeys = portal.client.app.state.tokens.keys  # type: ignore[attr-defined]
    new = rotate_signing_key(configuration.auth, configuration.paths, 0, **options)
    eventually(lambda: keys.signer(time.time()).kid == new.kid)
    return new.kid


def make_older(paths: PathSettings, seconds: float) -> None:
    """Make all rotations earlier by this time."""
    content = json.loads(paths.signing_keys_file.read_text())
    content["settings_superseded_at"] -= seconds
    for key in content["keys"]:
        key["active_from"] -= seconds
    paths.signing_keys_file.write_text(json.dumps(content))


def stored_ids(paths: PathSettings) -> list[str]:
    return [key["kid"] for key in json.loads(paths.signing_keys_file.read_text())["keys"]]


def test_a_rotation_logs_nobody_out_and_new_tokens_name_the_new_key(portal: Portal) -> None:
    portal.person(ADA)
    before = portal.grant(ADA)
    assert kid_of(before["access_token"]) is not None
    first = rotated(portal)
    between = portal.grant(ADA)
    second = rotated(portal)
    after = portal.grant(ADA)
    assert [kid_of(grant["access_token"]) for grant in (between, after)] == [first, second]
    for grant in (before, between, after):
        assert status(portal, grant["access_token"]) == 200
        renewed = portal.refresh(grant["refresh_token"])
        assert renewed.status_code == 200
        assert kid_of(renewed.json()["access_token"]) == second
        assert portal.refresh(renewed.json()["refresh_token"]).status_code == 200


def test_a_retry_across_a_rotation_gets_the_same_two_tokens(portal: Portal) -> None:
    portal.person(ADA)
    token = portal.grant(ADA)["refresh_token"]
    first = portal.refresh(token).json()
    rotated(portal)
    again = portal.refresh(token).json()
    assert (again["access_token"], again["refresh_token"]) == (first["access_token"], first["refresh_token"])


def test_every_process_reads_the_new_key_also_one_that_has_not_looked_yet(open_client: Any, tenants: Any) -> None:
    with running_portal(open_client, tenants, "acme") as one, open_client(limits=ROOMY) as second:
        one.person(ADA)
        grant, other = None, Portal(second, tenants)
        kid = rotated(one)
        grant = one.grant(ADA)
        assert kid_of(grant["access_token"]) == kid
        eventually(lambda: status(other, grant["access_token"]) == 200)
        assert other.refresh(grant["refresh_token"]).status_code == 200


def test_tokens_of_before_key_ids_stay_valid(portal: Portal) -> None:
    portal.person(ADA)
    token = portal.grant(ADA)["access_token"]
    claims = jwt.decode(token, SECRET, ["HS256"], audience="authenticated")
    old = jwt.encode(claims, SECRET, "HS256")
    assert (kid_of(old), status(portal, old)) == (None, 200)
    # A refresh token as versions before made it.
    payload = UUID(claims["session_id"]).bytes + (0).to_bytes(4, "big")
    key = hmac.digest(SECRET.encode(), b"refresh tokens", "sha256")
    refresh_token = base64.urlsafe_b64encode(payload + hmac.digest(key, payload, "sha256")).decode().rstrip("=")
    rotated(portal)
    assert status(portal, old) == 200
    assert portal.refresh(refresh_token).status_code == 200


def test_a_key_is_dropped_when_the_tokens_it_signed_have_expired(portal: Portal, configuration: Any) -> None:
    portal.person(ADA)
    grants = [portal.grant(ADA)]
    first = rotated(portal)
    grants.append(portal.grant(ADA))
    make_older(configuration.paths, 31 * DAY)
    second = rotated(portal)
    assert stored_ids(configuration.paths) == [first, second]
    assert status(portal, grants[0]["access_token"]) == 401  # of the setting, which signed until 31 days ago
    assert portal.refresh(grants[0]["refresh_token"]).status_code == 400
    assert status(portal, grants[1]["access_token"]) == 200
    make_older(configuration.paths, 31 * DAY)
    third = rotated(portal)
    assert stored_ids(configuration.paths) == [first, second, third]  # the API may have another `SESSION_SECONDS`
    assert status(portal, grants[1]["access_token"]) == 401
    make_older(configuration.paths, 366 * DAY)
    assert stored_ids(configuration.paths)[-1] == third
    fourth = rotated(portal)
    assert stored_ids(configuration.paths) == [third, fourth]


def test_a_leaked_key_can_be_revoked_at_once(portal: Portal) -> None:
    portal.person(ADA)
    rotated(portal)
    grant = portal.grant(ADA)
    rotated(portal, revoke_others=True)
    assert status(portal, grant["access_token"]) == 401
    assert portal.refresh(grant["refresh_token"]).status_code == 400
    forged = jwt.decode(grant["access_token"], options={"verify_signature": False})
    assert status(portal, jwt.encode(forged, SECRET, "HS256")) == 401
    assert status(portal, portal.grant(ADA)["access_token"]) == 200


@pytest.mark.parametrize("kid", ["nonsense", "", "../keys.json", 5, None, ["a"], {"a": 1}])
def test_a_forged_key_id_is_refused(portal: Portal, kid: Any) -> None:
    portal.person(ADA)
    rotated(portal)
    claims = jwt.decode(portal.grant(ADA)["access_token"], options={"verify_signature": False})
    header = jwt.utils.base64url_encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode())
    body = jwt.utils.base64url_encode(json.dumps(claims).encode())
    assert status(portal, f"{header.decode()}.{body.decode()}.{'x' * 43}") == 401


def test_the_file_is_readable_by_its_owner_alone_and_concurrent_rotations_lose_no_key(tmp_path: Path) -> None:
    paths = PathSettings(state_dir=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        kids = [key.kid for key in pool.map(lambda _: rotate_signing_key(AUTH, paths), range(8))]
    assert stat.S_IMODE(paths.signing_keys_file.stat().st_mode) == 0o600
    assert {key.kid for key in SigningKeys(AUTH, paths).valid()} > set(kids)


def test_a_new_key_signs_only_after_every_process_can_have_read_it(tmp_path: Path) -> None:
    paths = PathSettings(state_dir=tmp_path)
    keys = SigningKeys(AUTH, paths)
    old = keys.signer(time.time())
    new = rotate_signing_key(AUTH, paths)
    keys = SigningKeys(AUTH, paths)
    assert new.active_from - time.time() > 8
    assert keys.signer(time.time()) == old
    assert keys.signer(new.active_from) == new
    assert keys.with_id(new.kid) == new


def test_the_keys_are_bounded(tmp_path: Path) -> None:
    paths = PathSettings(state_dir=tmp_path)
    for _ in range(MAX_KEYS):
        rotate_signing_key(AUTH, paths)
    with pytest.raises(ValueError, match="50 keys are valid"):
        rotate_signing_key(AUTH, paths)
    make_older(paths, 31 * DAY)
    newest = stored_ids(paths)[-1]
    added = rotate_signing_key(AUTH, paths).kid
    assert stored_ids(paths) == [newest, added]


def test_other_secrets_of_the_settings_verify_and_do_not_sign(tmp_path: Path) -> None:
    before = SigningKeys(AUTH, PathSettings(state_dir=tmp_path)).signer(0)
    for others in (f"{'o' * 32}, {'p' * 32}", json.dumps(["o" * 32, "p" * 32])):
        settings = AuthSettings(jwt_secret="n" * 32, jwt_other_secrets=others)
        keys = SigningKeys(settings, PathSettings(state_dir=tmp_path))
        assert keys.signer(time.time()).secret == "n" * 32
        assert {key.secret for key in keys.valid()} == {"n" * 32, "o" * 32, "p" * 32}
        assert before not in keys.valid()
        assert "o" * 32 not in repr(settings)
    with_old = AuthSettings(jwt_secret="n" * 32, jwt_other_secrets=json.dumps([SECRET]))
    assert SigningKeys(with_old, PathSettings(state_dir=tmp_path)).with_id(before.kid) == before
    with pytest.raises(MissingSecretError, match="JWT_OTHER_SECRETS"):
        SigningKeys(AuthSettings(jwt_secret=SECRET, jwt_other_secrets="short"), PathSettings(state_dir=tmp_path))


def test_a_key_of_the_file_is_enough_to_start_and_a_broken_file_is_told(tmp_path: Path) -> None:
    paths, no_secret = PathSettings(state_dir=tmp_path), AuthSettings(jwt_secret=None)
    new = rotate_signing_key(no_secret, paths)
    keys = SigningKeys(no_secret, paths)
    assert keys.signer(time.time()) == new  # there is no other
    secret = new.secret
    for broken in ("", "{}", paths.signing_keys_file.read_text().replace('"kid"', '"id"')):
        paths.signing_keys_file.write_text(broken)
        with pytest.raises(ValueError, match=r"keys\.json cannot be read") as told:
            SigningKeys(no_secret, paths)
        assert secret not in str(told.value)


def test_while_the_file_is_broken_the_keys_that_were_read_stay(portal: Portal, configuration: Any, lines: Any) -> None:
    portal.person(ADA)
    kid = rotated(portal)
    path = configuration.paths.signing_keys_file
    content = path.read_text()
    path.write_text("{")
    logged: list[dict[str, Any]] = []

    def told() -> bool:
        logged.extend(lines())
        return any(line.get("task") == "signing keys" for line in logged)

    eventually(told)
    grant = portal.grant(ADA)
    assert (kid_of(grant["access_token"]), status(portal, grant["access_token"])) == (kid, 200)
    assert status(portal, jwt.encode({}, "x" * 32, "HS256", headers={"kid": "unknown"})) == 401
    assert json.loads(content)["keys"][0]["secret"] not in json.dumps(logged)
    path.write_text(content)


def test_the_command_rotates_the_key_of_a_running_api(database_url: str, tenants: Any, tmp_path: Path) -> None:
    tenants.create()
    Portal(None, tenants).person(ADA)  # type: ignore[arg-type]
    with (
        api_process(database_url, tmp_path, RATE_LIMIT_IP="1000000") as api,
        httpx.Client(base_url=api.url, timeout=60) as http,
    ):

        def log_in() -> Any:
            body = {"email": ADA, "password": PASSWORD}
            return http.post("/auth/v1/token?grant_type=password", json=body).raise_for_status().json()

        before = log_in()
        done = subprocess.run(
            [sys.executable, "-m", "api", "rotate-signing-key"],
            cwd=ROOT,
            # the shell of an operator need not have the settings of the API
            env={name: value for name, value in os.environ.items() if name != "JWT_SECRET"}
            | {"RECOMMENDAI_STATE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        kid = done.stdout.strip()
        eventually(lambda: kid_of(log_in()["access_token"]) == kid)
        for path in tmp_path.rglob("*"):
            if "signing-keys" in str(path):
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        own = http.get("/auth/v1/user", headers=bearer(before["access_token"]))
        renewed = http.post("/auth/v1/token?grant_type=refresh_token", json={"refresh_token": before["refresh_token"]})
        assert (own.status_code, renewed.status_code) == (200, 200)


def test_a_key_does_not_show_its_secret() -> None:
    assert "hidden" not in repr(SigningKey("kid", "hidden", 0.0))
