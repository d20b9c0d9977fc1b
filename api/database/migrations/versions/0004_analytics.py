"""Roll-ups: counts of the rows up to a transaction, so that only later rows have to be counted at each request.

Users and impressions store the transaction that wrote them, as interactions do. Triggers subtract rows that are deleted
after they were counted, whichever code deletes them. The number of live items is kept in the row with the catalogue's
version, because every writer of items holds that row's lock anyway.

Revision: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE analytics_totals (
        tenant_id TEXT NOT NULL,
        next_xid XID8 DEFAULT '0' NOT NULL,
        users BIGINT DEFAULT 0 NOT NULL,
        interactions BIGINT DEFAULT 0 NOT NULL,
        shown BIGINT DEFAULT 0 NOT NULL,
        CONSTRAINT analytics_totals_pkey PRIMARY KEY (tenant_id),
        CONSTRAINT analytics_totals_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    """
    CREATE TABLE analytics_days (
        tenant_id TEXT NOT NULL,
        day DATE NOT NULL,
        active_users BIGINT DEFAULT 0 NOT NULL,
        shown BIGINT DEFAULT 0 NOT NULL,
        CONSTRAINT analytics_days_pkey PRIMARY KEY (tenant_id, day),
        CONSTRAINT analytics_days_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    """
    CREATE TABLE analytics_active_users (
        tenant_id TEXT NOT NULL,
        day DATE NOT NULL,
        user_id TEXT NOT NULL,
        CONSTRAINT analytics_active_users_pkey PRIMARY KEY (tenant_id, day, user_id),
        CONSTRAINT analytics_active_users_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    """
    CREATE TABLE attributions (
        tenant_id TEXT NOT NULL,
        interaction_id UUID NOT NULL,
        recommendation_id UUID NOT NULL,
        CONSTRAINT attributions_pkey PRIMARY KEY (tenant_id, interaction_id),
        CONSTRAINT attributions_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    """
    CREATE TABLE release_models (
        tenant_id TEXT NOT NULL,
        release TEXT NOT NULL,
        family TEXT NOT NULL,
        version TEXT NOT NULL,
        auc DOUBLE PRECISION,
        published_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT release_models_pkey PRIMARY KEY (tenant_id, release, family),
        CONSTRAINT release_models_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id),
        CONSTRAINT release_models_auc_check CHECK (auc BETWEEN 0 AND 1)
    )
    """,
    """
    CREATE TABLE daily_accuracy (
        tenant_id TEXT NOT NULL,
        day DATE NOT NULL,
        release TEXT NOT NULL,
        family TEXT NOT NULL,
        auc DOUBLE PRECISION NOT NULL,
        users BIGINT NOT NULL,
        measured_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT daily_accuracy_pkey PRIMARY KEY (tenant_id, day, release, family),
        CONSTRAINT daily_accuracy_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id),
        CONSTRAINT daily_accuracy_auc_check CHECK (auc BETWEEN 0 AND 1)
    )
    """,
    "ALTER TABLE users ADD COLUMN xid XID8 DEFAULT pg_current_xact_id() NOT NULL",
    "CREATE INDEX users_xid_idx ON users (tenant_id, xid)",
    "ALTER TABLE impressions ADD COLUMN xid XID8 DEFAULT pg_current_xact_id() NOT NULL",
    "CREATE INDEX impressions_xid_idx ON impressions (tenant_id, xid)",
    "ALTER TABLE catalogues ADD COLUMN live_items BIGINT DEFAULT 0 NOT NULL",
    """
    UPDATE catalogues SET live_items = counted.items
    FROM (SELECT tenant_id, count(*) AS items FROM items WHERE deleted_at IS NULL GROUP BY tenant_id) AS counted
    WHERE catalogues.tenant_id = counted.tenant_id
    """,
)

# Each function first locks the totals of its tenants, so that it runs before or after a roll-up and never beside it.
FUNCTIONS = (
    """
    CREATE FUNCTION analytics_forget_users() RETURNS TRIGGER LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM analytics_totals WHERE tenant_id IN (SELECT tenant_id FROM gone) ORDER BY tenant_id FOR UPDATE;
        UPDATE analytics_totals AS totals SET users = totals.users - counted.users
        FROM (
            SELECT gone.tenant_id, count(*) AS users
            FROM gone JOIN analytics_totals AS bound ON bound.tenant_id = gone.tenant_id AND gone.xid < bound.next_xid
            GROUP BY gone.tenant_id
        ) AS counted
        WHERE totals.tenant_id = counted.tenant_id;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION analytics_forget_impressions() RETURNS TRIGGER LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM analytics_totals WHERE tenant_id IN (SELECT tenant_id FROM gone) ORDER BY tenant_id FOR UPDATE;
        WITH counted AS (
            SELECT gone.tenant_id, (gone.created_at AT TIME ZONE 'UTC')::date AS day,
                sum(cardinality(gone.item_ids)) AS shown
            FROM gone JOIN analytics_totals AS bound ON bound.tenant_id = gone.tenant_id AND gone.xid < bound.next_xid
            GROUP BY 1, 2
        ), days AS (
            UPDATE analytics_days AS known SET shown = known.shown - counted.shown
            FROM counted WHERE known.tenant_id = counted.tenant_id AND known.day = counted.day
        )
        UPDATE analytics_totals AS totals SET shown = totals.shown - whole.shown
        FROM (SELECT tenant_id, sum(shown) AS shown FROM counted GROUP BY tenant_id) AS whole
        WHERE totals.tenant_id = whole.tenant_id;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION analytics_forget_interactions() RETURNS TRIGGER LANGUAGE plpgsql AS $$
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
    """,
    """
    CREATE FUNCTION analytics_count_items() RETURNS TRIGGER LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            UPDATE catalogues SET live_items = live_items + counted.items
            FROM (SELECT tenant_id, count(*) AS items FROM come WHERE deleted_at IS NULL GROUP BY tenant_id) AS counted
            WHERE catalogues.tenant_id = counted.tenant_id;
        ELSIF TG_OP = 'DELETE' THEN
            UPDATE catalogues SET live_items = live_items - counted.items
            FROM (SELECT tenant_id, count(*) AS items FROM gone WHERE deleted_at IS NULL GROUP BY tenant_id) AS counted
            WHERE catalogues.tenant_id = counted.tenant_id;
        ELSE
            UPDATE catalogues SET live_items = live_items + counted.items
            FROM (
                SELECT tenant_id, sum(one) AS items
                FROM (
                    SELECT tenant_id, 1 AS one FROM come WHERE deleted_at IS NULL
                    UNION ALL
                    SELECT tenant_id, -1 FROM gone WHERE deleted_at IS NULL
                ) AS changed
                GROUP BY tenant_id HAVING sum(one) <> 0
            ) AS counted
            WHERE catalogues.tenant_id = counted.tenant_id;
        END IF;
        RETURN NULL;
    END $$
    """,
)

TRIGGERS = (
    ("users_forgotten", "users", "DELETE", "OLD TABLE AS gone", "analytics_forget_users"),
    ("impressions_forgotten", "impressions", "DELETE", "OLD TABLE AS gone", "analytics_forget_impressions"),
    ("interactions_forgotten", "interactions", "DELETE", "OLD TABLE AS gone", "analytics_forget_interactions"),
    ("items_come", "items", "INSERT", "NEW TABLE AS come", "analytics_count_items"),
    ("items_changed", "items", "UPDATE", "OLD TABLE AS gone NEW TABLE AS come", "analytics_count_items"),
    ("items_gone", "items", "DELETE", "OLD TABLE AS gone", "analytics_count_items"),
)


def upgrade() -> None:
    for statement in (*TABLES, *FUNCTIONS):
        op.execute(statement)
    for name, table, event, rows, function in TRIGGERS:
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON {table} REFERENCING {rows} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )


def downgrade() -> None:
    for name, table, *_ in TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON {table}")
    op.execute(
        "DROP FUNCTION analytics_forget_users, analytics_forget_impressions, analytics_forget_interactions, "
        "analytics_count_items"
    )
    op.execute("ALTER TABLE catalogues DROP COLUMN live_items")
    op.execute("ALTER TABLE impressions DROP COLUMN xid")
    op.execute("ALTER TABLE users DROP COLUMN xid")
    op.execute(
        "DROP TABLE daily_accuracy, release_models, attributions, analytics_active_users, analytics_days, "
        "analytics_totals"
    )
