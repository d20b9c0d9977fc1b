"""Users who have an interaction have a history version of at least 1, by which the user quota counts them.

Migration 0011 began all users at 0, and a user's first interaction did not count up.

Revision: 0019
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        UPDATE users SET history_version = 1
        WHERE history_version = 0 AND EXISTS (
            SELECT FROM interactions AS event
            WHERE event.tenant_id = users.tenant_id AND event.user_id = users.id
        )
        """
    )


def downgrade() -> None:
    """A version that is higher than needed is harmless."""
