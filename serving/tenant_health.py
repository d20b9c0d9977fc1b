"""What the API knows of each tenant's calls to the model server: whether they fail, and how long they take.

Breaker. After a call of a tenant failed, no query of that tenant is sent for a pause, which doubles with each failure
in a row. The first query after the pause is sent as its probe, whose success ends the breaker and whose failure starts
a longer pause. Other tenants are not affected.

Patience. How long a caller waits before it gets the fallback: the setting, and up to its upper bound where the tenant's
slowest recent call took more than a third of it. Only calls that were answered in time count, so that patience does not
follow a server that becomes slow all at once.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 2.0
"""A tenant is served by models again within this time after its trouble has ended."""
SLOWEST_FACTOR = 3.0
FORGETTING = 0.95
"""By what factor a slowest call counts less with each further call."""
MAX_TENANTS = 4_096
"""Tenants that are remembered. The one that was not asked for the longest time is forgotten first."""


@dataclass(slots=True)
class _TenantHealth:
    slowest: float = 0.0  # seconds that a recent call took, decayed
    failures: int = 0  # in a row
    paused_until: float = 0.0
    probing: bool = False  # the query that was sent after the pause has no answer yet


class TenantHealth:
    """One per client."""

    def __init__(
        self,
        patience_seconds: float,
        max_patience_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        size: int = MAX_TENANTS,
    ) -> None:
        self._base = patience_seconds
        self._most = max(patience_seconds, max_patience_seconds)
        self._clock = clock
        self._size = size
        self._tenants: OrderedDict[str, _TenantHealth] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tenants)

    def admits(self, tenant_id: str) -> bool:
        """Whether a query may be sent now. After a pause, the first that asks may: its query is the probe."""
        health = self._tenants.get(tenant_id)
        if health is None or not health.failures:
            return True
        if health.probing or self._clock() < health.paused_until:
            return False
        health.probing = True
        return True

    def patience(self, tenant_id: str) -> float:
        """Seconds that a caller of this tenant waits for a call."""
        health = self._tenants.get(tenant_id)
        slowest = health.slowest if health is not None else 0.0
        return min(max(self._base, SLOWEST_FACTOR * slowest), self._most)

    def answered(self, tenant_id: str, seconds: float) -> None:
        """A call was answered after so many seconds. Ends the breaker."""
        health = self._remember(tenant_id)
        if seconds <= self.patience(tenant_id):
            health.slowest = max(seconds, FORGETTING * health.slowest)
        health.failures, health.probing = 0, False

    def failed(self, tenant_id: str) -> int:
        """A call failed. Starts a pause. Returns how many calls of the tenant failed in a row."""
        health = self._remember(tenant_id)
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(health.failures, 10), MAX_PAUSE_SECONDS)
        health.failures += 1
        health.paused_until = self._clock() + pause
        health.probing = False
        return health.failures

    def withdraw(self, tenant_id: str) -> None:
        """No query of the tenant is in flight. A probe that was neither answered nor failed is to be made again."""
        health = self._tenants.get(tenant_id)
        if health is not None:
            health.probing = False

    def forgive_all(self) -> None:
        """Ask for every tenant again: the server was away, and has come back."""
        for health in self._tenants.values():
            health.failures, health.probing = 0, False

    def _remember(self, tenant_id: str) -> _TenantHealth:
        health = self._tenants.setdefault(tenant_id, _TenantHealth())
        self._tenants.move_to_end(tenant_id)
        while len(self._tenants) > self._size:
            self._tenants.popitem(last=False)
        return health
