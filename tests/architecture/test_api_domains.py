"""Domains of the API import each other in one direction: every import is held against a table of allowed pairs."""

from graphlib import TopologicalSorter

import pytest

from tests.architecture.test_imports import MODULES, imports_of

# By domain (a folder of `api/`), the other domains that it may import. Whatever is in SHARED, any domain may import.
ALLOWED: dict[str, set[str]] = {
    "database": set(),
    "http": {"database"},
    "background": set(),
    "journal_copies": set(),
    "terminal": {"database", "http"},
    "backup": {"erasure", "tenants", "users"},
    "benchmark": set(),
    "health": set(),
    "audit": set(),
    "monitoring": set(),
    "tenants": {"audit"},
    "sessions": set(),
    "idempotency": set(),
    "analytics": {"tenants"},
    "metering": {"tenants"},
    "billing": {"audit", "metering"},
    "generation": {"metering", "tenants"},
    "items": {"metering", "tenants"},
    "keys": {"audit", "idempotency", "journal_copies", "tenants"},
    "status": {"analytics"},
    "alerts": {"audit"},
    "settings": {"alerts", "audit", "tenants"},
    "erasure": {"audit", "billing", "idempotency", "journal_copies", "settings", "tenants"},
    "users": {"audit", "erasure", "metering", "sessions", "tenants"},
    "auth": {"audit", "sessions", "tenants", "users"},
    "exports": {"audit", "idempotency", "tenants"},
    "gotrue": {"auth", "users"},
    "imports": {"metering", "users"},
    "interactions": {"metering", "tenants", "users"},
    "usage": {"analytics", "metering", "users"},
    "lists": {"items"},
    "segments": {"audit", "lists", "tenants"},
    "front_page": {"metering", "recommendations"},
    "recommendations": {"erasure", "items", "lists", "metering", "scenarios", "tenants"},
    "scenarios": {"audit", "idempotency", "tenants"},
    "retention": set(),
    "records": {"items", "metering", "recommendations"},
    "graphql": {"idempotency", "interactions", "metering", "recommendations"},
}
SHARED = {"database", "http", "background", "terminal"}
ENTRIES = {"__main__", "app", "asgi", "cli"}
"""Modules that put the application and the command line together: they may import every domain, and none them."""


def domain_of(module: str) -> str:
    return module.split(".")[1]


def imported_domains(name: str) -> set[str]:
    """The other domains, or modules beside them, that a module of the API imports; inside functions too."""
    ours = {each for each in imports_of(name, MODULES[name]) if each.startswith("api.")}
    return {domain_of(each) for each in ours} - {domain_of(name)}


NAMES = sorted(name for name in MODULES if name.startswith("api.") and ".migrations" not in name)


@pytest.mark.parametrize("name", [name for name in NAMES if domain_of(name) not in ENTRIES])
def test_a_domain_imports_only_what_the_table_allows(name: str) -> None:
    own = domain_of(name)
    may = ALLOWED[own] if own in SHARED else ALLOWED[own] | SHARED
    assert not imported_domains(name) - may, f"{name} may not import these domains"


def test_the_table_names_every_domain_and_no_pair_that_nobody_needs() -> None:
    assert set(ALLOWED) == {domain_of(name) for name in NAMES} - ENTRIES
    needed: dict[str, set[str]] = {domain: set() for domain in ALLOWED}
    for name in NAMES:
        if domain_of(name) not in ENTRIES:
            needed[domain_of(name)] |= imported_domains(name)
    unused = {domain: allowed - needed[domain] for domain, allowed in ALLOWED.items() if allowed - needed[domain]}
    assert not unused


def test_no_domain_imports_itself_in_a_circle() -> None:
    order = list(TopologicalSorter(ALLOWED).static_order())  # raises CycleError, which names the circle
    assert set(order) == set(ALLOWED)
