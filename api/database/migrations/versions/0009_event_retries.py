"""When an event of Stripe that was not handled is tried again.

Revision: 0009
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE stripe_events ADD COLUMN retry_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE stripe_events DROP COLUMN retry_at")
