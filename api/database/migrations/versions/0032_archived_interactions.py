"""Old interactions as arrays, a row for each user and month: less than a third of the space.

`archived_events` shows them as rows, `all_interactions` together with those of the table `interactions`. Totals of
rows that were moved are in `expired_counts`; their attributions stay, and go with the archive's row. The trigger that
makes histories out of date and the one that takes attributions away pass over a transaction that moves rows.

Revision: 0032
"""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE archived_interactions (
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    month DATE NOT NULL,
    ids UUID[] NOT NULL,
    item_ids TEXT[] NOT NULL,
    interaction_types TEXT[] NOT NULL,
    event_values REAL[] NOT NULL,
    occurred_at TIMESTAMP WITH TIME ZONE[] NOT NULL,
    ingested_at TIMESTAMP WITH TIME ZONE[] NOT NULL,
    recommendation_ids UUID[] NOT NULL,
    CONSTRAINT archived_interactions_pkey PRIMARY KEY (tenant_id, user_id, month)
)
"""

VIEWS = (
    """
    CREATE VIEW archived_events AS
    SELECT archive.tenant_id, event.id, archive.user_id, event.item_id, event.interaction_type, event.value,
        event.occurred_at, event.ingested_at, event.recommendation_id
    FROM archived_interactions AS archive CROSS JOIN LATERAL unnest(
        archive.ids, archive.item_ids, archive.interaction_types, archive.event_values, archive.occurred_at,
        archive.ingested_at, archive.recommendation_ids
    ) AS event (id, item_id, interaction_type, value, occurred_at, ingested_at, recommendation_id)
    """,
    """
    CREATE VIEW all_interactions AS
    SELECT tenant_id, id, user_id, item_id, interaction_type, value, occurred_at, ingested_at, recommendation_id
    FROM interactions
    UNION ALL SELECT * FROM archived_events
    """,
)

FORGET_ARCHIVED = """
CREATE FUNCTION forget_archived_interactions() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE expired_counts AS known SET interactions = known.interactions - counted.interactions
    FROM (SELECT tenant_id, sum(cardinality(ids)) AS interactions FROM gone GROUP BY tenant_id) AS counted
    WHERE known.tenant_id = counted.tenant_id;
    DELETE FROM attributions USING gone CROSS JOIN LATERAL unnest(gone.ids) AS event (id)
    WHERE attributions.tenant_id = gone.tenant_id AND attributions.interaction_id = event.id;
    RETURN NULL;
END $$
"""

ARCHIVED = """
CREATE TRIGGER archived_forgotten AFTER DELETE ON archived_interactions REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION forget_archived_interactions()
"""

MOVING = "current_setting('recommendai.archiving', true) IS NOT DISTINCT FROM 'yes'"

# As in migration 0004, but for the last statement.
FORGET_INTERACTIONS = """
CREATE OR REPLACE FUNCTION analytics_forget_interactions() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM analytics_totals WHERE tenant_id IN (SELECT tenant_id FROM gone) ORDER BY tenant_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;  -- nothing of these tenants was counted yet
    END IF;
    UPDATE analytics_totals AS totals SET interactions = totals.interactions - counted.interactions
    FROM (
        SELECT gone.tenant_id, count(*) AS interactions
        FROM gone JOIN analytics_totals AS bound ON bound.tenant_id = gone.tenant_id AND gone.xid < bound.next_xid
        GROUP BY gone.tenant_id
    ) AS counted
    WHERE totals.tenant_id = counted.tenant_id;
    {moving}
    WITH silent AS (
        DELETE FROM analytics_active_users AS active
        USING (
            SELECT DISTINCT gone.tenant_id, (gone.occurred_at AT TIME ZONE 'UTC')::date AS day, gone.user_id
            FROM gone
        ) AS left_day, analytics_totals AS bound
        WHERE active.tenant_id = left_day.tenant_id AND active.day = left_day.day
            AND active.user_id = left_day.user_id AND bound.tenant_id = active.tenant_id
            AND NOT EXISTS (
                SELECT FROM interactions AS other
                WHERE other.tenant_id = left_day.tenant_id AND other.user_id = left_day.user_id
                    AND other.occurred_at >= left_day.day::timestamp AT TIME ZONE 'UTC'
                    AND other.occurred_at < (left_day.day + 1)::timestamp AT TIME ZONE 'UTC'
                    AND other.xid < bound.next_xid
            )
        RETURNING active.tenant_id, active.day
    )
    UPDATE analytics_days AS known SET active_users = known.active_users - counted.users
    FROM (SELECT tenant_id, day, count(*) AS users FROM silent GROUP BY tenant_id, day) AS counted
    WHERE known.tenant_id = counted.tenant_id AND known.day = counted.day;
    DELETE FROM attributions USING gone
    WHERE attributions.tenant_id = gone.tenant_id AND attributions.interaction_id = gone.id;
    RETURN NULL;
END $$
"""
_STAY = f"""
    IF {MOVING} THEN
        RETURN NULL;  -- active days and attributions stay as they are
    END IF;
"""

HISTORY_GONE = """
CREATE TRIGGER history_gone AFTER DELETE ON interactions REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT {condition} EXECUTE FUNCTION count_history_changes()
"""


def upgrade() -> None:
    op.execute(TABLE)
    for view in VIEWS:
        op.execute(view)
    op.execute("ALTER TABLE expired_counts ADD COLUMN interactions BIGINT DEFAULT 0 NOT NULL")
    op.execute(FORGET_ARCHIVED)
    op.execute(ARCHIVED)
    op.execute(FORGET_INTERACTIONS.format(moving=_STAY))
    op.execute("DROP TRIGGER history_gone ON interactions")
    op.execute(HISTORY_GONE.format(condition=f"WHEN (NOT ({MOVING}))"))


def downgrade() -> None:
    """Moves all rows back, under the lowest transaction id, so that no export takes them for new."""
    op.execute("DROP TRIGGER history_gone ON interactions")
    op.execute(HISTORY_GONE.format(condition=""))
    op.execute(FORGET_INTERACTIONS.format(moving=""))
    op.execute("DROP TRIGGER archived_forgotten ON archived_interactions")
    op.execute("DROP FUNCTION forget_archived_interactions")
    op.execute(
        "INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, value, occurred_at, ingested_at, "
        "recommendation_id, xid) SELECT archived_events.*, '3'::xid8 FROM archived_events"
    )
    op.execute(
        "UPDATE analytics_totals AS totals SET interactions = totals.interactions + known.interactions "
        "FROM expired_counts AS known WHERE known.tenant_id = totals.tenant_id"
    )
    op.execute("ALTER TABLE expired_counts DROP COLUMN interactions")
    op.execute("DROP VIEW all_interactions, archived_events")
    op.execute("DROP TABLE archived_interactions")
