"""The product's tables: tenants, keys, users, items, interactions and impressions.

Revision: 0001
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE tenants (
        id TEXT NOT NULL,
        plan TEXT DEFAULT 'free' NOT NULL,
        exclude_seen TEXT DEFAULT 'all' NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        deleted_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT tenants_pkey PRIMARY KEY (id),
        CONSTRAINT tenants_id_check CHECK (id ~ '^[a-z][a-z0-9-]{1,31}$'),
        CONSTRAINT tenants_exclude_seen_check CHECK (exclude_seen IN ('none', 'bought', 'all'))
    )
    """,
    """
    CREATE TABLE api_keys (
        id UUID NOT NULL,
        tenant_id TEXT NOT NULL,
        name TEXT NOT NULL,
        prefix TEXT NOT NULL,
        key_hash BYTEA NOT NULL,
        scopes TEXT[] NOT NULL,
        rate_limit INTEGER,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        last_used_at TIMESTAMP WITH TIME ZONE,
        revoked_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT api_keys_pkey PRIMARY KEY (id),
        CONSTRAINT api_keys_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id),
        CONSTRAINT api_keys_key_hash_key UNIQUE (key_hash)
    )
    """,
    """
    CREATE INDEX api_keys_tenant_id_idx ON api_keys (tenant_id)
    """,
    """
    CREATE TABLE users (
        tenant_id TEXT NOT NULL,
        id TEXT NOT NULL,
        email TEXT,
        name TEXT,
        password_hash TEXT,
        role TEXT DEFAULT 'user' NOT NULL,
        is_active BOOLEAN DEFAULT true NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        last_active_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT users_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT users_role_check CHECK (role IN ('user', 'admin')),
        CONSTRAINT users_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    """
    CREATE UNIQUE INDEX users_login_email_key ON users (lower(email)) WHERE password_hash IS NOT NULL
    """,
    """
    CREATE TABLE catalogues (
        tenant_id TEXT NOT NULL,
        version BIGINT DEFAULT 0 NOT NULL,
        CONSTRAINT catalogues_pkey PRIMARY KEY (tenant_id),
        CONSTRAINT catalogues_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    """
    CREATE TABLE items (
        tenant_id TEXT NOT NULL,
        id TEXT NOT NULL,
        metadata JSONB NOT NULL,
        is_active BOOLEAN DEFAULT true NOT NULL,
        version BIGINT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        deleted_at TIMESTAMP WITH TIME ZONE,
        search TSVECTOR GENERATED ALWAYS AS (
            jsonb_to_tsvector('english'::regconfig, metadata, '["string", "numeric"]'::jsonb)
        ) STORED,
        CONSTRAINT items_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT items_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    """
    CREATE INDEX items_metadata_idx ON items USING gin (metadata jsonb_path_ops)
    """,
    """
    CREATE INDEX items_search_idx ON items USING gin (search)
    """,
    """
    CREATE INDEX items_tenant_id_version_idx ON items (tenant_id, version)
    """,
    """
    CREATE TABLE interactions (
        tenant_id TEXT NOT NULL,
        id UUID NOT NULL,
        user_id TEXT NOT NULL,
        item_id TEXT NOT NULL,
        interaction_type TEXT NOT NULL,
        value REAL,
        occurred_at TIMESTAMP WITH TIME ZONE NOT NULL,
        ingested_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        recommendation_id UUID,
        xid XID8 DEFAULT pg_current_xact_id() NOT NULL,
        CONSTRAINT interactions_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT interactions_interaction_type_check
            CHECK (interaction_type IN ('view', 'click', 'like', 'purchase')),
        CONSTRAINT interactions_value_check CHECK (value BETWEEN 0 AND 1)
    )
    """,
    """
    CREATE INDEX interactions_recent_idx ON interactions (tenant_id, occurred_at DESC)
        INCLUDE (item_id, interaction_type, value)
    """,
    """
    CREATE INDEX interactions_user_idx ON interactions (tenant_id, user_id, occurred_at DESC)
        INCLUDE (item_id, interaction_type, value)
    """,
    """
    CREATE INDEX interactions_xid_idx ON interactions (tenant_id, xid)
    """,
    """
    CREATE TABLE impressions (
        tenant_id TEXT NOT NULL,
        recommendation_id UUID NOT NULL,
        user_id TEXT NOT NULL,
        algorithm TEXT NOT NULL,
        release TEXT,
        degraded TEXT,
        item_ids TEXT[] NOT NULL,
        scores REAL[] NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT impressions_pkey PRIMARY KEY (tenant_id, recommendation_id)
    )
    """,
    """
    CREATE INDEX impressions_created_at_idx ON impressions (tenant_id, created_at DESC)
    """,
    """
    CREATE INDEX impressions_user_idx ON impressions (tenant_id, user_id, created_at DESC)
    """,
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE impressions, interactions, items, catalogues, users, api_keys, tenants")
