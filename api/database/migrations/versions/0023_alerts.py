"""Alerts on their way to the webhooks and mail addresses of tenants.

Revision: 0023
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE alerts (
        tenant_id TEXT NOT NULL,
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        event TEXT NOT NULL,
        subject TEXT NOT NULL,
        facts JSONB NOT NULL,
        attempts INTEGER DEFAULT 0 NOT NULL,
        next_attempt_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        webhook_at TIMESTAMP WITH TIME ZONE,
        mail_at TIMESTAMP WITH TIME ZONE,
        finished_at TIMESTAMP WITH TIME ZONE,
        error TEXT,
        CONSTRAINT alerts_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT alerts_event_check CHECK (event IN ('drift', 'promotion', 'run_failed', 'rollback')),
        CONSTRAINT alerts_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    "CREATE INDEX alerts_due_idx ON alerts (next_attempt_at) WHERE finished_at IS NULL",
    "CREATE INDEX alerts_newest_idx ON alerts (tenant_id, created_at DESC)",
    "CREATE INDEX alerts_expiry_idx ON alerts (created_at)",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE alerts")
