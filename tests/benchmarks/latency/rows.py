"""What `make bench-latency` measures: the rows, and how each is measured."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
from rich.console import Console

from tests.benchmarks.latency.baselines import serving_baseline
from tests.benchmarks.latency.fresh import USERS as COPIED_USERS
from tests.benchmarks.latency.fresh import copies, differing_answers, histories, measure_fresh
from tests.benchmarks.latency.generator import send
from tests.benchmarks.latency.measure import Round, body_of, measure, measure_first_requests, medians, warm_up
from tests.benchmarks.new_release import await_release, publish_again
from tests.benchmarks.running_demo import RunningDemo, Tenant, unique

JOURNEY = "complete-journey"
USERS = 900
FAMILIES = ("hybrid", "deep-learning", "collaborative")
CLIENTS = (1, 16)
MANY_CLIENTS = 32
FRESH_FAMILIES = ("hybrid", "deep-learning")
COMPUTED = "computed"
COMPUTED_BODIES = 50_000
"""So many that few of them come twice in a round."""
ROWS = (*FAMILIES, COMPUTED, JOURNEY, "fresh", "release", "baselines")
"""What `--rows` takes."""

console = Console(stderr=True)


@dataclass(frozen=True)
class Options:
    """How long and how often is measured."""

    rows: tuple[str, ...] = ROWS
    seconds: float = 6.0
    rounds: int = 3


@dataclass(frozen=True)
class _Row:
    """One line of the result, and how one round of it is measured."""

    name: str
    clients: int
    measure: Callable[[], Round]


def measure_rows(demo: RunningDemo, options: Options) -> dict[str, Any]:
    """The medians of all rounds by row, catalogues, and answers that differ from uncached ones."""
    tenant = demo.tenant()
    tenants = [tenant]
    if JOURNEY in options.rows:
        tenants.append(demo.imported_tenant(JOURNEY, JOURNEY))
    catalogues = [catalogue_of(demo, each) for each in tenants]
    found: list[dict[str, Any]] = []
    differing: list[str] = []
    with ExitStack() as stack:
        rows = [*_plain_rows(demo, tenants, options), *_computed_rows(demo, tenant, options)]
        found += _in_rounds([*rows, *_baseline_rows(stack, options)], options.rounds)
    if "fresh" in options.rows:
        users, items = demo.users(tenant, COPIED_USERS), _items(demo, tenant)
        with copies(demo, tenant, histories(demo, tenant, users), unique("fresh")) as made:
            copied = list(made.values())
            found += _in_rounds(list(_fresh_rows(demo, tenant, copied, items, options)), options.rounds)
            differing = differing_answers(demo, tenant, copied, items, FRESH_FAMILIES)
    if "release" in options.rows:
        found += _in_rounds([_Row("release", 16, lambda: _after_a_swap(demo, tenant))], options.rounds)
    return {"catalogues": catalogues, "rows": found, "differing": differing}


def catalogue_of(demo: RunningDemo, tenant: Tenant) -> dict[str, Any]:
    """Numbers of items, users and interactions, and the families of the release."""
    query = """
        SELECT (SELECT count(*) FROM items WHERE tenant_id = %(tenant)s AND deleted_at IS NULL),
            count(DISTINCT user_id), count(*)
        FROM interactions WHERE tenant_id = %(tenant)s
    """
    with psycopg.connect(demo.database_url) as connection:
        row = connection.execute(query, {"tenant": tenant.id}).fetchone()
    assert row is not None
    families = demo.releases()[tenant.id]["families"]
    return {"tenant": tenant.id, "items": row[0], "users": row[1], "interactions": row[2], "families": families}


def _in_rounds(rows: list[_Row], rounds: int) -> list[dict[str, Any]]:
    """All rows in turn, so often; what else the machine does meanwhile falls on all of them."""
    results: list[list[Round]] = [[] for _ in rows]
    for number in range(rounds):
        for row, of in zip(rows, results, strict=True):
            of.append(row.measure())
            console.print(f"round {number + 1}: {row.name}, {row.clients} clients", of[-1], soft_wrap=True)
    return [
        {"row": row.name, "clients": row.clients, **medians(of), "rounds": of}
        for row, of in zip(rows, results, strict=True)
    ]


def _plain_rows(demo: RunningDemo, tenants: list[Tenant], options: Options) -> Iterator[_Row]:
    plain = [(family, tenants[0], family) for family in FAMILIES if family in options.rows]
    plain += [(JOURNEY, tenant, "hybrid") for tenant in tenants[1:]]
    for name, tenant, family in plain:
        bodies = [body_of(user, family) for user in demo.users(tenant, USERS)]
        clients = (*CLIENTS, MANY_CLIENTS) if name == "hybrid" else CLIENTS
        for number in clients:

            def once(tenant: Tenant = tenant, number: int = number, bodies: list[str] = bodies) -> Round:
                return measure(demo, tenant, bodies, number, options.seconds)

            yield _Row(name, number, once)


def _computed_rows(demo: RunningDemo, tenant: Tenant, options: Options) -> Iterator[_Row]:
    """Queries that were not asked before, so that none is answered from the cache of answers."""
    if COMPUTED not in options.rows:
        return
    users = demo.users(tenant, USERS)
    for number in (*CLIENTS, MANY_CLIENTS):

        def once(number: int = number) -> Round:
            name = unique("not-an-item")
            bodies = [body_of(random.choice(users), "hybrid", [f"{name}-{body}"]) for body in range(COMPUTED_BODIES)]
            return measure(demo, tenant, bodies, number, options.seconds)

        yield _Row(COMPUTED, number, once)


def _baseline_rows(stack: ExitStack, options: Options) -> Iterator[_Row]:
    """The no-op and the naive peer. Their processes run until the stack is closed."""
    if "baselines" not in options.rows:
        return
    bodies = [body_of(str(user), "hybrid") for user in range(1, USERS + 1)]  # users of MovieLens
    for name in ("noop", "naive_peer"):
        url = stack.enter_context(serving_baseline(name))
        warm_up(url, {}, bodies, MANY_CLIENTS)

        def once(url: str = url) -> Round:
            return send(url, {}, bodies, MANY_CLIENTS, options.seconds)

        yield _Row(name, MANY_CLIENTS, once)


def _fresh_rows(
    demo: RunningDemo, tenant: Tenant, users: list[str], items: list[str], options: Options
) -> Iterator[_Row]:
    for family in FRESH_FAMILIES:

        def once(family: str = family) -> Round:
            return measure_fresh(demo, tenant, users, items, family, 16, options.seconds)

        yield _Row(f"fresh {family}", 16, once)


def _after_a_swap(demo: RunningDemo, tenant: Tenant) -> Round:
    """Each user's first request after a release is swapped in, in a random order."""
    users = demo.users(tenant, USERS)
    random.shuffle(users)
    await_release(demo, tenant.id, publish_again(demo, tenant.id))
    return measure_first_requests(demo, tenant, users, "hybrid", 16)


def _items(demo: RunningDemo, tenant: Tenant) -> list[str]:
    """Ids of items that may be shown, in order."""
    query = "SELECT id FROM items WHERE tenant_id = %s AND is_active AND deleted_at IS NULL ORDER BY id LIMIT 1000"
    with psycopg.connect(demo.database_url) as connection:
        return [row[0] for row in connection.execute(query, [tenant.id]).fetchall()]
