"""Recommendations for all users are the same on one machine and on several, one of which dies."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from configs.compute import ComputeSettings
from pipelines.defs.generation.steps import process_jobs
from pipelines.resources import Installation
from tests.compute.conftest import Machines
from tests.feature_store.rows import add_items
from tests.pipelines.conftest import TENANT, connection, installation  # noqa: F401 - they are fixtures
from tests.pipelines.test_generation import add_users, ask, quiet, release, shop  # noqa: F401

pytestmark = pytest.mark.service


def test_a_job_writes_the_same_on_several_machines(
    installation: Installation,  # noqa: F811
    shop: psycopg.Connection[Any],  # noqa: F811
    release: str,  # noqa: F811
    two: Machines,
) -> None:
    add_users(shop, *[f"user-{number}" for number in range(9)])
    settings = ComputeSettings(engine="ray", ray_address=two.address, token_file=two.token_file)
    shared = replace(installation, engine=settings)
    add_items(shop, TENANT, {"horror-new": {"title": "one more", "genres": ["horror"]}})  # later than the release
    here = ask(shop)
    (outcome,) = process_jobs(installation, TENANT, quiet, max_batch=2)
    assert (outcome.job_id, outcome.users) == (here, 9)
    rows = "SELECT user_id, item_id, rank, score, reason, release FROM recommendations WHERE job_id = %s ORDER BY 1, 3"
    expected = shop.execute(rows, [here]).fetchall()
    assert len(expected) == 45
    killed = ask(shop)

    def kill_once(done: int, _of: int) -> None:
        if done == 2:
            two.kill_second()

    (outcome,) = process_jobs(shared, TENANT, kill_once, max_batch=2)
    assert (outcome.problem, outcome.users) == ("", 9)
    assert shop.execute(rows, [killed]).fetchall() == expected
    assert list(installation.paths.generation.iterdir()) == []  # no event of a user stays
