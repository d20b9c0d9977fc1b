"""The plan's limits on items and users, for an import. An import is all or nothing, so it is refused as a whole."""

from datetime import UTC, datetime

from psycopg import Connection
from psycopg.rows import TupleRow

from api.database.scope import TenantScope
from api.metering.repository import TERMS, terms_of
from api.users.quota import LOCK, QUOTA_USERS
from configs.plans import Plan
from feature_store.loaders.problems import ImportRefusedError


class PlanQuota:
    """The limits of a tenant's plan. Use it in the transaction of the import, which locks the tenant's row."""

    def __init__(self, connection: Connection[TupleRow], scope: TenantScope) -> None:
        self._connection = connection
        self._tenant = scope.tenant_id
        now = datetime.now(UTC)
        row = connection.execute(TERMS, {"tenants": [scope.tenant_id], "now": now}).fetchone()
        if row is None:
            raise LookupError(scope.tenant_id)
        self._plan: Plan = terms_of(row, now).plan
        self._users_before = 0

    def hold(self) -> None:
        """Make other writers of new users wait until the import ends. Writers of items wait anyway."""
        if self._plan.user_limit is not None:
            self._connection.execute(LOCK, [self._tenant])
            self._users_before = self._count(_USERS)

    def check(self, items_added: int, interactions_added: int) -> None:
        """Check the limits after the rows were added. Raises ImportRefusedError where one is exceeded.

        Users are counted also where none was added: with its first interaction a portal user counts.
        """
        if items_added:
            self._check("items", self._plan.item_limit, self._count(_ITEMS))
        if interactions_added and self._plan.user_limit is not None:
            users = self._count(_USERS)
            if users > self._users_before:
                self._check("users", self._plan.user_limit, users)

    def _check(self, what: str, limit: int | None, found: int) -> None:
        if limit is not None and found > limit:
            raise ImportRefusedError(
                f"the plan {self._plan.name} takes {limit:,} {what}, and with this import there would be {found:,}"
            )

    def _count(self, statement: str) -> int:
        row = self._connection.execute(statement, [self._tenant]).fetchone()
        return 0 if row is None else int(row[0])


_ITEMS = "SELECT live_items FROM catalogues WHERE tenant_id = %s"
_USERS = f"SELECT count(*) FROM {QUOTA_USERS}"  # noqa: S608 - a constant
