"""The networks from which users logged in, each with its own count of wrong passwords.

Revision: 0012
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE login_networks (
        tenant_id TEXT NOT NULL,
        user_id TEXT NOT NULL,
        network TEXT NOT NULL,
        last_login_at TIMESTAMPTZ DEFAULT now() NOT NULL,
        failures INTEGER DEFAULT 0 NOT NULL,
        last_failed_at TIMESTAMPTZ,
        delayed_until TIMESTAMPTZ,
        CONSTRAINT login_networks_pkey PRIMARY KEY (tenant_id, user_id, network),
        CONSTRAINT login_networks_tenant_id_fkey FOREIGN KEY (tenant_id, user_id)
            REFERENCES users (tenant_id, id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX login_networks_last_login_at_idx ON login_networks (last_login_at)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE login_networks")
