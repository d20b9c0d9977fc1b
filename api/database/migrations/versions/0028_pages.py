"""Pages of recommendations that follow from an answer, and the items of answers that were really seen.

Revision: 0028
"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE recommendation_pages (
        tenant_id TEXT NOT NULL,
        recommendation_id UUID NOT NULL,
        sequence_id UUID NOT NULL,
        number INTEGER NOT NULL,
        request TEXT,
        created_at TIMESTAMP WITH TIME ZONE NOT NULL,
        CONSTRAINT recommendation_pages_pkey PRIMARY KEY (tenant_id, recommendation_id),
        CONSTRAINT recommendation_pages_tenant_id_fkey FOREIGN KEY (tenant_id, recommendation_id)
            REFERENCES impressions (tenant_id, recommendation_id) ON DELETE CASCADE
    )
    """,
    "CREATE UNIQUE INDEX recommendation_pages_sequence_idx ON recommendation_pages (tenant_id, sequence_id, number)",
    "CREATE INDEX recommendation_pages_created_at_idx ON recommendation_pages (created_at)",
    """
    CREATE TABLE seen_impressions (
        tenant_id TEXT NOT NULL,
        recommendation_id UUID NOT NULL,
        item_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        seen_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT seen_impressions_pkey PRIMARY KEY (tenant_id, recommendation_id, item_id),
        CONSTRAINT seen_impressions_position_check CHECK (position >= 1),
        CONSTRAINT seen_impressions_tenant_id_fkey FOREIGN KEY (tenant_id, recommendation_id)
            REFERENCES impressions (tenant_id, recommendation_id) ON DELETE CASCADE
    )
    """,
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE seen_impressions, recommendation_pages")
