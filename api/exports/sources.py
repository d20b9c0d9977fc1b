"""What is held on a person, by table: one source for each list of the export.

Tests walk all tables: whoever adds one decides whether it holds something on a person, and then adds it here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Table

from api.database.tables import all_tables
from feature_store.online import ALL_INTERACTIONS

NOT_EXPORTED = {"tenant_id", "xid"}
"""Columns of any table: the tenant is the caller's, and the other is of use to the pipeline alone."""
KEPT_DAYS = 92
"""Days for which `analytics_active_users` has rows (`feature_store.analytics_sinks.KEPT_DAYS`), and today."""
_OF_THE_USER = "{table}.user_id = %(user)s"


@dataclass(frozen=True)
class ExportSource:
    """Rows of one table that are about a person.

    `key` are columns that order the rows and tell them apart; an index should lead to the person's rows in their order.
    """

    table: str
    key: tuple[str, ...]
    condition: str = _OF_THE_USER
    secret: frozenset[str] = frozenset()  # columns that are left out
    more: Mapping[str, str] | None = None  # further members, as SQL
    has_tenant: bool = True
    view: str | None = None  # is read in place of the table and has its columns, but more rows

    def columns(self) -> dict[str, str]:
        """The exported members of a row by name, as SQL."""
        table: Table = all_tables().tables[self.table]
        names = [column.name for column in table.columns if column.name not in NOT_EXPORTED | self.secret]
        own = {name: f"{self.table}.{name}" for name in names}
        return {**own, **(self.more or {})}

    def statement(self, *, first: bool) -> str:
        """The first page of the rows, or that after the row with the key `%(after_0)s, %(after_1)s ...`."""
        keys = [f"{self.table}.{name}" for name in self.key]
        conditions = [self.condition.format(table=self.table)]
        if self.has_tenant:
            conditions.append(f"{self.table}.tenant_id = %(tenant)s")
        if not first:
            after = [f"%(after_{number})s" for number in range(len(keys))]
            # The condition on the first column alone is what an index can begin at.
            conditions += [f"{keys[0]} >= {after[0]}", f"({', '.join(keys)}) > ({', '.join(after)})"]
        selected = ", ".join(f'{expression} AS "{name}"' for name, expression in self.columns().items())
        return (
            f"SELECT {', '.join(keys)}, {selected} FROM {self.view or self.table} AS {self.table} "  # noqa: S608 - constants
            f"WHERE {' AND '.join(conditions)} "
            f"ORDER BY {', '.join(keys)} LIMIT %(limit)s"
        )


_ATTRIBUTED = """
(SELECT attributions.recommendation_id FROM attributions
WHERE attributions.tenant_id = interactions.tenant_id AND attributions.interaction_id = interactions.id)
"""
_OF_THE_IMPRESSION = "tenant_id = impressions.tenant_id AND recommendation_id = impressions.recommendation_id"
_PAGE = f"""
(SELECT jsonb_build_object('sequenceId', pages.sequence_id, 'number', pages.number, 'request', pages.request)
FROM recommendation_pages AS pages WHERE {_OF_THE_IMPRESSION})
"""  # noqa: S608 - a constant of this module
_SEEN = f"""
(SELECT jsonb_agg(jsonb_build_object('itemId', item_id, 'position', position, 'at', seen_at) ORDER BY position)
FROM seen_impressions WHERE {_OF_THE_IMPRESSION})
"""  # noqa: S608 - a constant of this module
_RECENT_DAYS = f"""
{{table}}.user_id = %(user)s AND {{table}}.day = ANY(
    SELECT current_date + 1 - days FROM generate_series(0, {KEPT_DAYS + 1}) AS days
)
"""  # noqa: S608 - a constant of this module

PROFILE = ExportSource(
    "users",
    ("id",),
    "users.id = %(user)s",
    frozenset({"password_hash"}),
    {"has_password": "users.password_hash IS NOT NULL"},
)
SOURCES: dict[str, ExportSource] = {
    "interactions": ExportSource(
        "interactions", ("occurred_at", "id"), more={"attributed_to": _ATTRIBUTED}, view=ALL_INTERACTIONS
    ),
    "recommendations": ExportSource("recommendations", ("created_at", "id")),
    "impressions": ExportSource(
        "impressions", ("created_at", "recommendation_id"), more={"page": _PAGE, "seen": _SEEN}
    ),
    "history": ExportSource("user_histories", ("user_id",)),
    "active_days": ExportSource("analytics_active_users", ("day",), _RECENT_DAYS),
    "segments": ExportSource(
        "segment_users",
        ("segment_id",),
        more={
            "name": "(SELECT segments.name FROM segments WHERE segments.tenant_id = segment_users.tenant_id "
            "AND segments.id = segment_users.segment_id)"
        },
    ),
    "sessions": ExportSource("sessions", ("created_at", "id")),
    "login_networks": ExportSource("login_networks", ("network",)),
    "stored_responses": ExportSource(
        "idempotency_records",
        ("request",),
        "{table}.user_id = %(digest)s",
        frozenset({"request", "fingerprint", "user_id"}),
    ),
    "audit_by_user": ExportSource("audit_entries", ("at", "id"), "{table}.actor = %(reference)s"),
    "audit_about_user": ExportSource(
        "audit_entries",
        ("at", "id"),
        "{table}.target_kind = 'user' AND {table}.target = %(reference)s AND {table}.actor <> %(reference)s",
    ),
    "billing_changes": ExportSource("billing_audit", ("at", "id"), "{table}.actor = 'user:' || %(user)s"),
    "erasures": ExportSource("tombstones", ("user_id",)),
    "alert_addresses": ExportSource(
        "pipeline_settings",
        ("tenant_id",),
        "EXISTS (SELECT FROM jsonb_array_elements_text({table}.settings #> '{{alerts,emails}}') AS address "
        "WHERE lower(address) = lower(%(email)s))",
        frozenset({"settings", "webhook_secret"}),
    ),
    "exports": ExportSource("export_jobs", ("created_at", "id")),
    "failed_logins": ExportSource(
        "failed_logins",
        ("account",),
        "{table}.account = sha256(convert_to(lower(%(email)s), 'UTF8'))",
        frozenset({"account"}),
        has_tenant=False,  # a login names no tenant
    ),
}
"""By member of the export. `archived_interactions` and `attributions` are part of the interactions, and
`recommendation_pages` and `seen_impressions` of the impressions."""
