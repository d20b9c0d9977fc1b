"""Generation jobs and recommendation records.

Revision: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE generation_jobs (
        tenant_id TEXT NOT NULL,
        id UUID NOT NULL,
        algorithm TEXT NOT NULL,
        user_segment TEXT NOT NULL,
        count INTEGER NOT NULL,
        status TEXT DEFAULT 'processing' NOT NULL,
        users_total BIGINT NOT NULL,
        users_done BIGINT DEFAULT 0 NOT NULL,
        recommendations_written BIGINT DEFAULT 0 NOT NULL,
        attempts INTEGER DEFAULT 0 NOT NULL,
        release TEXT,
        error TEXT,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE,
        finished_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT generation_jobs_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT generation_jobs_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id),
        CONSTRAINT generation_jobs_algorithm_check
            CHECK (algorithm IN ('collaborative', 'content-based', 'hybrid', 'deep-learning')),
        CONSTRAINT generation_jobs_user_segment_check CHECK (user_segment IN ('all', 'active', 'new')),
        CONSTRAINT generation_jobs_status_check CHECK (status IN ('processing', 'completed', 'failed'))
    )
    """,
    """
    CREATE INDEX generation_jobs_processing_idx ON generation_jobs (created_at) WHERE status = 'processing'
    """,
    """
    CREATE INDEX generation_jobs_finished_idx ON generation_jobs (tenant_id, finished_at DESC)
    """,
    """
    CREATE TABLE recommendations (
        tenant_id TEXT NOT NULL,
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        user_id TEXT NOT NULL,
        item_id TEXT NOT NULL,
        rank SMALLINT NOT NULL,
        score DOUBLE PRECISION NOT NULL,
        algorithm TEXT NOT NULL,
        reason TEXT NOT NULL,
        release TEXT,
        job_id UUID,
        recommendation_id UUID,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT recommendations_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT recommendations_tenant_id_fkey FOREIGN KEY(tenant_id, user_id)
            REFERENCES users (tenant_id, id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX recommendations_user_idx ON recommendations (tenant_id, user_id, created_at DESC, rank)
    """,
    """
    CREATE INDEX recommendations_created_at_idx ON recommendations (tenant_id, created_at DESC, user_id, rank)
    """,
    """
    CREATE INDEX recommendations_algorithm_idx
        ON recommendations (tenant_id, algorithm, created_at DESC, user_id, rank)
    """,
    """
    CREATE INDEX recommendations_job_idx ON recommendations (tenant_id, job_id, user_id) WHERE job_id IS NOT NULL
    """,
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE recommendations, generation_jobs")
