"""Claims of requests in flight that call another service, so that no connection is held for them.

Revision: 0021
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE idempotency_claims (
            tenant_id TEXT NOT NULL,
            request BYTEA NOT NULL,
            token UUID NOT NULL,
            claimed_until TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT idempotency_claims_pkey PRIMARY KEY (tenant_id, request)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE idempotency_claims")
