"""Histories as they are sent to the models: one row per user, which a read builds and every write makes out of date.

A user's `history_version` counts the changes of the user's interactions. A built history holds the version that it was
built from, and is used while that is still the user's. The writers of this code count in the statement that writes the
user anyway, and say so with a setting of the transaction. For every other statement, of an earlier version of this code
or of a person, a trigger counts.

Revision: 0011
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLES = (
    "ALTER TABLE users ADD COLUMN history_version BIGINT DEFAULT 0 NOT NULL",
    """
    CREATE TABLE user_histories (
        tenant_id TEXT NOT NULL,
        user_id TEXT NOT NULL,
        version BIGINT NOT NULL,
        form INTEGER NOT NULL,
        events BYTEA NOT NULL,
        seen BYTEA NOT NULL,
        bought BYTEA NOT NULL,
        CONSTRAINT user_histories_pkey PRIMARY KEY (tenant_id, user_id),
        CONSTRAINT user_histories_tenant_id_fkey FOREIGN KEY (tenant_id, user_id)
            REFERENCES users (tenant_id, id) ON DELETE CASCADE
    )
    """,
)

# A branch of plpgsql is planned when it first runs, so it may name a table that only its own operation has.
COUNT = """
CREATE FUNCTION count_history_changes() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE users SET history_version = history_version + 1
        FROM (SELECT DISTINCT tenant_id, user_id FROM come) AS changed
        WHERE users.tenant_id = changed.tenant_id AND users.id = changed.user_id;
    ELSIF TG_OP = 'DELETE' THEN
        UPDATE users SET history_version = history_version + 1
        FROM (SELECT DISTINCT tenant_id, user_id FROM gone) AS changed
        WHERE users.tenant_id = changed.tenant_id AND users.id = changed.user_id;
    ELSE
        UPDATE users SET history_version = history_version + 1
        FROM (SELECT tenant_id, user_id FROM come UNION SELECT tenant_id, user_id FROM gone) AS changed
        WHERE users.tenant_id = changed.tenant_id AND users.id = changed.user_id;
    END IF;
    RETURN NULL;
END $$
"""

UNCOUNTED = "current_setting('recommendai.history_counted', true) IS DISTINCT FROM 'yes'"

TRIGGERS = {
    "history_come": ("INSERT", "NEW TABLE AS come", f"WHEN ({UNCOUNTED})"),
    "history_changed": ("UPDATE", "OLD TABLE AS gone NEW TABLE AS come", ""),
    "history_gone": ("DELETE", "OLD TABLE AS gone", ""),
}


def upgrade() -> None:
    for statement in (*TABLES, COUNT):
        op.execute(statement)
    for name, (event, rows, condition) in TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON interactions REFERENCING {rows} "
            f"FOR EACH STATEMENT {condition} EXECUTE FUNCTION count_history_changes()"
        )


def downgrade() -> None:
    for name in TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON interactions")
    op.execute("DROP FUNCTION count_history_changes")
    op.execute("DROP TABLE user_histories")
    op.execute("ALTER TABLE users DROP COLUMN history_version")
