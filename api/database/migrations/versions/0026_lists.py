"""Lists of items that the pipeline makes, segments with their users, and the newest items from an index.

Revision: 0026
"""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE item_lists (
        tenant_id TEXT NOT NULL,
        source TEXT NOT NULL,
        of_item TEXT NOT NULL,
        item_ids TEXT[] NOT NULL,
        scores DOUBLE PRECISION[] NOT NULL,
        made_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT item_lists_pkey PRIMARY KEY (tenant_id, source, of_item),
        CONSTRAINT item_lists_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    """
    CREATE TABLE segments (
        tenant_id TEXT NOT NULL,
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        filter JSONB,
        behaviour JSONB,
        size BIGINT,
        measured_at TIMESTAMP WITH TIME ZONE,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT segments_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT segments_kind_check CHECK (kind IN ('users', 'items')),
        CONSTRAINT segments_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    """
    CREATE TABLE segment_users (
        tenant_id TEXT NOT NULL,
        segment_id UUID NOT NULL,
        user_id TEXT NOT NULL,
        CONSTRAINT segment_users_pkey PRIMARY KEY (tenant_id, segment_id, user_id),
        CONSTRAINT segment_users_segment_fkey FOREIGN KEY(tenant_id, segment_id)
            REFERENCES segments (tenant_id, id) ON DELETE CASCADE,
        CONSTRAINT segment_users_user_fkey FOREIGN KEY(tenant_id, user_id)
            REFERENCES users (tenant_id, id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX segment_users_user_idx ON segment_users (tenant_id, user_id)",
    "CREATE INDEX items_newest_idx ON items (tenant_id, created_at DESC, id) WHERE is_active AND deleted_at IS NULL",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX items_newest_idx")
    for table in ("segment_users", "segments", "item_lists"):
        op.execute(f"DROP TABLE {table}")
