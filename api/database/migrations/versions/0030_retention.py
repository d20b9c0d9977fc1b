"""What totals still count of rows that were deleted because of their age, and how old handled webhook events are found.

Revision: 0030
"""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE expired_counts (
    tenant_id TEXT NOT NULL,
    shown BIGINT DEFAULT 0 NOT NULL,
    generated BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT expired_counts_pkey PRIMARY KEY (tenant_id),
    CONSTRAINT expired_counts_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
)
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute("CREATE INDEX stripe_events_handled_idx ON stripe_events (handled_at)")


def downgrade() -> None:
    op.execute("DROP INDEX stripe_events_handled_idx")
    op.execute("DROP TABLE expired_counts")
