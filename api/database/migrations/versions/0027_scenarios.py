"""Scenarios: named recipes with versions, and a counter by which processes know that a tenant's have changed.

Revision: 0027
"""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

UP = (
    "ALTER TABLE tenants ADD COLUMN scenario_edition BIGINT DEFAULT 0 NOT NULL",
    """
    CREATE TABLE scenarios (
        tenant_id TEXT NOT NULL,
        id TEXT NOT NULL,
        name TEXT NOT NULL,
        status TEXT NOT NULL,
        version INTEGER NOT NULL,
        live_version INTEGER,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT scenarios_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT scenarios_status_check CHECK (status IN ('draft', 'live', 'archived')),
        CONSTRAINT scenarios_live_version_check CHECK ((status = 'live') = (live_version IS NOT NULL)),
        CONSTRAINT scenarios_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    "CREATE INDEX scenarios_created_at_idx ON scenarios (tenant_id, created_at DESC, id)",
    """
    CREATE TABLE scenario_versions (
        tenant_id TEXT NOT NULL,
        scenario_id TEXT NOT NULL,
        version INTEGER NOT NULL,
        recipe JSONB NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT scenario_versions_pkey PRIMARY KEY (tenant_id, scenario_id, version),
        CONSTRAINT scenario_versions_tenant_id_fkey FOREIGN KEY(tenant_id, scenario_id)
            REFERENCES scenarios (tenant_id, id) ON DELETE CASCADE
    )
    """,
    "ALTER TABLE audit_entries DROP CONSTRAINT audit_entries_target_kind_check",
    "ALTER TABLE audit_entries ADD CONSTRAINT audit_entries_target_kind_check "
    "CHECK (target_kind IN ('user', 'key', 'tenant', 'model', 'scenario'))",
)
DOWN = (
    "DROP TABLE scenario_versions",
    "DROP TABLE scenarios",
    "ALTER TABLE tenants DROP COLUMN scenario_edition",
    "ALTER TABLE audit_entries DROP CONSTRAINT audit_entries_target_kind_check",
    # Entries about scenarios stay, so the rows that are there are not held to the kinds of before.
    "ALTER TABLE audit_entries ADD CONSTRAINT audit_entries_target_kind_check "
    "CHECK (target_kind IN ('user', 'key', 'tenant', 'model')) NOT VALID",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
