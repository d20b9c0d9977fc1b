"""Tombstones of erased users.

Revision: 0006
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE tombstones (
        tenant_id TEXT NOT NULL,
        user_id TEXT NOT NULL,
        erased_at TIMESTAMP WITH TIME ZONE NOT NULL,
        xid XID8 DEFAULT pg_current_xact_id() NOT NULL,
        CONSTRAINT tombstones_pkey PRIMARY KEY (tenant_id, user_id),
        CONSTRAINT tombstones_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    "CREATE INDEX tombstones_xid_idx ON tombstones (tenant_id, xid)",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE tombstones")
