"""Tags of API keys, by which a process tells keys of this installation from random ones without a query.

Revision: 0017
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE api_keys ADD COLUMN is_tagged BOOLEAN DEFAULT false NOT NULL")
    op.execute(
        "CREATE TABLE installation_secrets (name TEXT NOT NULL, secret BYTEA NOT NULL, "
        "CONSTRAINT installation_secrets_pkey PRIMARY KEY (name))"
    )
    add = sa.text("INSERT INTO installation_secrets (name, secret) VALUES ('api-key-tags', :secret)")
    op.get_bind().execute(add, {"secret": secrets.token_bytes(32)})


def downgrade() -> None:
    op.execute("DROP TABLE installation_secrets")
    op.execute("ALTER TABLE api_keys DROP COLUMN is_tagged")
