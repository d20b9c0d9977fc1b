"""Sessions with rotating refresh tokens, failed logins, and what an identity provider keeps about users.

Revision: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS = {
    "user_metadata": "JSONB DEFAULT '{}' NOT NULL",
    "role_pinned": "BOOLEAN DEFAULT false NOT NULL",
    "role_issued_at": "TIMESTAMP WITH TIME ZONE",
    "updated_at": "TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL",
    "last_login_at": "TIMESTAMP WITH TIME ZONE",
}
TABLES = (
    """
    CREATE TABLE sessions (
        id UUID NOT NULL,
        tenant_id TEXT NOT NULL,
        user_id TEXT NOT NULL,
        generation INTEGER DEFAULT 0 NOT NULL,
        refreshable BOOLEAN NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
        CONSTRAINT sessions_pkey PRIMARY KEY (id),
        CONSTRAINT sessions_tenant_id_fkey FOREIGN KEY(tenant_id, user_id)
            REFERENCES users (tenant_id, id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX sessions_user_idx ON sessions (tenant_id, user_id)",
    "CREATE INDEX sessions_expires_at_idx ON sessions (expires_at)",
    """
    CREATE TABLE failed_logins (
        account BYTEA NOT NULL,
        failures INTEGER NOT NULL,
        last_failed_at TIMESTAMP WITH TIME ZONE NOT NULL,
        delayed_until TIMESTAMP WITH TIME ZONE,
        CONSTRAINT failed_logins_pkey PRIMARY KEY (account)
    )
    """,
    "CREATE INDEX failed_logins_last_failed_at_idx ON failed_logins (last_failed_at)",
)


def upgrade() -> None:
    for name, definition in COLUMNS.items():
        op.execute(f"ALTER TABLE users ADD COLUMN {name} {definition}")
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE failed_logins, sessions")
    for name in COLUMNS:
        op.execute(f"ALTER TABLE users DROP COLUMN {name}")
