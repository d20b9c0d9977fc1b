"""The audit trail of a tenant.

Revision: 0016
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE audit_entries (
        tenant_id TEXT NOT NULL,
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        target_kind TEXT,
        target TEXT,
        ip TEXT,
        detail JSONB,
        CONSTRAINT audit_entries_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT audit_entries_target_kind_check CHECK (target_kind IN ('user', 'key', 'tenant', 'model')),
        CONSTRAINT audit_entries_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    "CREATE INDEX audit_entries_at_idx ON audit_entries (tenant_id, at DESC, id)",
    "CREATE INDEX audit_entries_actor_idx ON audit_entries (tenant_id, actor, at DESC)",
    "CREATE INDEX audit_entries_target_idx ON audit_entries (tenant_id, target, at DESC)",
    "CREATE INDEX audit_entries_expiry_idx ON audit_entries (at)",
    "CREATE INDEX audit_entries_key_idx ON audit_entries (tenant_id) WHERE target_kind = 'key'",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE audit_entries")
