"""Stored answers of idempotent requests.

Revision: 0005
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE kept_answers (
            tenant_id TEXT NOT NULL,
            request BYTEA NOT NULL,
            fingerprint BYTEA NOT NULL,
            user_id TEXT,
            status SMALLINT NOT NULL,
            headers JSONB NOT NULL,
            body BYTEA NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            CONSTRAINT kept_answers_pkey PRIMARY KEY (tenant_id, request)
        )
        """
    )
    op.execute("CREATE INDEX kept_answers_created_at_idx ON kept_answers (created_at)")


def downgrade() -> None:
    op.execute("DROP TABLE kept_answers")
