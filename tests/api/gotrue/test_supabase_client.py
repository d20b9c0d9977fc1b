"""The client `supabase-auth`, unchanged, over HTTP."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr
from supabase_auth import AsyncGoTrueClient, SyncGoTrueClient
from supabase_auth.errors import AuthApiError, AuthWeakPasswordError

from api.app import Configuration, create_app
from configs.auth import AuthSettings
from tests.api.conftest import SECRET
from tests.fixtures.live import served
from tests.fixtures.platform import PATIENCE_SECONDS
from tests.fixtures.portal import ROOMY

PASSWORD = "the first password"
NEW_PASSWORD = "the second password"
EMAIL = "jane@example.com"


@pytest.fixture
def url(configuration: Configuration, tenants: Any) -> Iterator[str]:
    """GoTrue's routes of a running server that is open to all."""
    tenants.create("acme")
    auth = AuthSettings(jwt_secret=SecretStr(SECRET), registration_tenant="acme")
    with served(create_app(replace(configuration, auth=auth, limits=ROOMY))) as base:
        yield f"{base}/auth/v1"


@pytest.fixture
def client(url: str) -> Iterator[SyncGoTrueClient]:
    with client_of(url, auto_refresh_token=False) as client:
        yield client


def client_of(url: str, **options: Any) -> SyncGoTrueClient:
    """Its own deadline of 5 s is too short where other tests keep all processors busy."""
    return SyncGoTrueClient(url=url, http_client=httpx.Client(timeout=PATIENCE_SECONDS), **options)


def sign_up(client: SyncGoTrueClient, **credentials: Any) -> Any:
    return client.sign_up({"email": EMAIL, "password": PASSWORD, "options": {"data": {"name": "Jane"}}, **credentials})


def test_a_life_from_sign_up_to_sign_out(client: SyncGoTrueClient, url: str) -> None:
    signed_up = sign_up(client)
    assert signed_up.user.email == EMAIL
    assert signed_up.user.user_metadata["name"] == "Jane"
    assert signed_up.session.token_type == "bearer"

    with pytest.raises(AuthApiError) as wrong:
        client.sign_in_with_password({"email": EMAIL, "password": "wrong password"})
    assert (wrong.value.code, wrong.value.status) == ("invalid_credentials", 400)

    signed_in = client.sign_in_with_password({"email": EMAIL, "password": PASSWORD})
    assert signed_in.user.id == signed_up.user.id
    assert signed_in.user.last_sign_in_at is not None

    refreshed = client.refresh_session()
    assert refreshed.session.refresh_token != signed_in.session.refresh_token
    assert client.get_user().user.id == signed_up.user.id

    client.update_user({"password": NEW_PASSWORD, "current_password": PASSWORD})
    with pytest.raises(AuthApiError) as revoked:
        client.refresh_session()
    assert revoked.value.code == "refresh_token_not_found"
    client.sign_in_with_password({"email": EMAIL, "password": NEW_PASSWORD})

    last = client.get_session()
    client.sign_out()
    assert client.get_session() is None
    with pytest.raises(AuthApiError) as gone:
        client.refresh_session(last.refresh_token)
    assert (gone.value.code, gone.value.status) == ("refresh_token_not_found", 400)
    with client_of(url) as another, pytest.raises(AuthApiError) as refused:
        another.sign_in_with_password({"email": EMAIL, "password": PASSWORD})
    assert refused.value.code == "invalid_credentials"


def test_errors_have_the_codes_that_the_client_knows(client: SyncGoTrueClient) -> None:
    sign_up(client)
    with pytest.raises(AuthApiError) as taken:
        sign_up(client, email=EMAIL.upper())
    assert (taken.value.code, taken.value.status) == ("user_already_exists", 422)
    with pytest.raises(AuthWeakPasswordError) as weak:
        sign_up(client, email="another@example.com", password="short")
    assert (weak.value.code, weak.value.status, weak.value.reasons) == ("weak_password", 422, ["length"])
    with pytest.raises(AuthApiError) as same:
        client.update_user({"password": PASSWORD, "current_password": PASSWORD})
    assert same.value.code == "same_password"
    with pytest.raises(AuthApiError) as bad:
        client.get_user("no.valid.token")
    assert bad.value.status == 401


def test_a_stolen_refresh_token_ends_the_session_of_thief_and_owner(
    client: SyncGoTrueClient, url: str, database_url: str
) -> None:
    stolen = sign_up(client).session.refresh_token
    client.refresh_session()
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE sessions SET rotations[1] = rotations[1] - interval '11 seconds'")
    with client_of(url) as thief, pytest.raises(AuthApiError) as caught:
        thief.refresh_session(stolen)
    assert caught.value.code == "refresh_token_already_used"
    with pytest.raises(AuthApiError):
        client.refresh_session()


def test_a_session_moves_to_another_client(client: SyncGoTrueClient, url: str) -> None:
    session = sign_up(client).session
    with client_of(url) as another:
        moved = another.set_session(session.access_token, session.refresh_token)
        assert moved.user.email == EMAIL
        another.sign_out({"scope": "others"})
        assert another.refresh_session().session is not None
        changed = another.update_user({"data": {"theme": "dark"}})
        assert changed.user.user_metadata["theme"] == "dark"


@pytest.mark.parametrize("scope", ["global", "local", "others"])
def test_signing_out_by_scope(client: SyncGoTrueClient, url: str, scope: Any) -> None:
    here = sign_up(client).session
    with client_of(url) as another:
        there = another.sign_in_with_password({"email": EMAIL, "password": PASSWORD}).session
        client.sign_out({"scope": scope})

        def dead(token: str) -> bool:
            try:
                another.refresh_session(token)
            except AuthApiError:
                return True
            return False

        assert dead(there.refresh_token) is (scope != "local")
        assert dead(here.refresh_token) is (scope != "others")


async def _async_life(url: str) -> str:
    async with AsyncGoTrueClient(
        url=url, auto_refresh_token=False, http_client=httpx.AsyncClient(timeout=PATIENCE_SECONDS)
    ) as client:
        await client.sign_up({"email": EMAIL, "password": PASSWORD})
        await client.sign_out()
        await client.sign_in_with_password({"email": EMAIL, "password": PASSWORD})
        found = await client.get_user()
        return str(found.user.email)


def test_the_asynchronous_client_works_too(url: str) -> None:
    import asyncio

    assert asyncio.run(_async_life(url)) == EMAIL
