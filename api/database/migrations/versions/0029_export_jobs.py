"""Exports of a tenant's rows that administrators ask for.

Revision: 0029
"""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE export_jobs (
        tenant_id TEXT NOT NULL,
        id UUID NOT NULL,
        user_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        format TEXT NOT NULL,
        since TIMESTAMP WITH TIME ZONE,
        until TIMESTAMP WITH TIME ZONE,
        status TEXT DEFAULT 'processing' NOT NULL,
        attempts INTEGER DEFAULT 0 NOT NULL,
        rows BIGINT,
        bytes BIGINT,
        error TEXT,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE,
        finished_at TIMESTAMP WITH TIME ZONE,
        expires_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT export_jobs_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT export_jobs_kind_check CHECK (kind IN ('interactions', 'impressions', 'recommendations')),
        CONSTRAINT export_jobs_format_check CHECK (format IN ('parquet', 'csv')),
        CONSTRAINT export_jobs_status_check CHECK (status IN ('processing', 'completed', 'failed', 'expired')),
        CONSTRAINT export_jobs_tenant_id_fkey FOREIGN KEY(tenant_id, user_id) REFERENCES users (tenant_id, id)
            ON DELETE CASCADE
    )
    """,
    "CREATE INDEX export_jobs_processing_idx ON export_jobs (created_at) WHERE status = 'processing'",
    "CREATE INDEX export_jobs_newest_idx ON export_jobs (tenant_id, created_at DESC)",
    "CREATE INDEX export_jobs_user_idx ON export_jobs (tenant_id, user_id, created_at)",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE export_jobs")
