"""Which tenants serve other versions than their aliases name, without Dagster."""

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from pipelines.alerts import send_alert
from pipelines.defs.training.families import released_families
from pipelines.resources import Installation
from serving.release import newest_manifest
from training.tracking.aliases import Aliases, Hold, ModelAliases


@dataclass
class TenantChoices:
    """What a person chose of a tenant's champions and no release holds yet."""

    serving: str | None  # the newest release
    released: dict[str, str]  # its versions, by family
    versions: dict[str, str] = field(default_factory=dict)  # champions that the release does not hold, by family
    refits: dict[str, str] = field(default_factory=dict)  # versions whose configuration is to be fitted again
    noticed: dict[str, Hold] = field(default_factory=dict)  # holds that began just now, because an alias was moved

    @property
    def key(self) -> str:
        """Names the choice, so that it is seen which one a run published."""
        return ",".join(f"{family}={version}" for family, version in sorted(self.versions.items()))


@dataclass(frozen=True)
class RegistryScan:
    """The part of the registry that was read, and where to go on."""

    choices: dict[str, TenantChoices]  # by tenant
    token: str | None  # None: the whole registry was read


def scan_registry(
    installation: Installation, tenants: Collection[str], token: str | None, seconds: float
) -> RegistryScan:
    """Compare the champions that persons chose with what the newest releases hold, and put holds on moved aliases.

    Args:
        tenants: the others are left out.
        token: where the last scan ended; None begins anew.
        seconds: after which the scan ends at the next page.
    """
    registry = Aliases(installation.tracking.resolve(installation.paths))
    choices: dict[str, TenantChoices] = {}
    for page, following in _pages(registry, token, seconds):
        token = following
        for each in page:
            tenant, _, family = each.name.rpartition(".")
            if tenant in tenants:
                _look_at(installation, registry, each, tenant, family, choices)
    for tenant, one in choices.items():
        for family, hold in one.noticed.items():
            words = f"version {one.versions.get(family, 'that serves')} is the champion and is held"
            tell_of_choices(installation, tenant, {family: words}, hold.by, hold.reason)
    return RegistryScan({tenant: one for tenant, one in choices.items() if one.versions or one.refits}, token)


def tell_of_choices(installation: Installation, tenant: str, chosen: Mapping[str, str], by: str, reason: str) -> None:
    """Alert the tenant that a person chose champions. chosen: what follows, by family."""
    subject = f"{by} chose what serves: {', '.join(chosen)}"
    send_alert(installation, tenant, "rollback", subject, {"by": by, "reason": reason, **chosen})


def _pages(registry: Aliases, token: str | None, seconds: float) -> Iterator[tuple[list[ModelAliases], str | None]]:
    began = time.monotonic()
    while True:
        page, token = registry.page_of_aliases(token)
        yield page, token
        if token is None or time.monotonic() - began > seconds:
            return


def _look_at(
    installation: Installation,
    registry: Aliases,
    found: ModelAliases,
    tenant: str,
    family: str,
    choices: dict[str, TenantChoices],
) -> None:
    now = registry.notice_move(found)
    if now.champion is None or not now.chosen_by_a_person or family not in released_families():
        return
    if tenant not in choices:
        manifest = newest_manifest(installation.paths.bentoml, tenant)
        released = {} if manifest is None else {name: model.version for name, model in manifest.families.items()}
        choices[tenant] = TenantChoices(None if manifest is None else manifest.release, released)
    choice = choices[tenant]
    if now.hold is not None and now.hold != found.hold:
        choice.noticed[family] = now.hold
    if now.hold is not None and now.hold.refit_of is not None:
        choice.refits[family] = now.hold.refit_of
    elif choice.released.get(family) != now.champion:
        choice.versions[family] = now.champion
