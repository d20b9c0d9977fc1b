"""The SQL of `analytics_sinks`. Tables and columns are named as text; a contract test holds them against the API's."""

from feature_store.attribution import ATTRIBUTION_HOURS, FOLLOWED_ANSWER, followed_answer_joins

ADOPT_CLUSTER = "SELECT adopt_cluster()"
"""Makes restored rows those of this cluster, before anything is counted."""
MAKE_TOTALS = "INSERT INTO analytics_totals (tenant_id) VALUES ($1) ON CONFLICT DO NOTHING"
LOCK_TOTALS = "SELECT next_xid::text FROM analytics_totals WHERE tenant_id = $1 FOR UPDATE"
XMIN = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
_SPAN = "tenant_id = $1 AND xid >= $2::text::xid8 AND xid < $3::text::xid8"
STEP_END = f"""
WITH uncounted AS (SELECT xid FROM interactions WHERE {_SPAN} ORDER BY xid LIMIT $4::bigint + 1)
SELECT min(xid)::text, max(xid)::text FROM uncounted HAVING count(*) > $4::bigint
"""  # noqa: S608
COUNT_USERS = f"SELECT count(*) FROM users WHERE {_SPAN}"  # noqa: S608
COUNT_INTERACTIONS = f"SELECT count(*) FROM interactions WHERE {_SPAN}"  # noqa: S608
COUNT_ITEMS_SHOWN = f"SELECT coalesce(sum(cardinality(item_ids)), 0) FROM impressions WHERE {_SPAN}"  # noqa: S608

# Rows are inserted in the order of the key, since neighbours go to the same pages.
ADD_ACTIVE_USERS = f"""
WITH added AS (
    INSERT INTO analytics_active_users (tenant_id, day, user_id)
    SELECT DISTINCT $1, (occurred_at AT TIME ZONE 'UTC')::date, user_id FROM interactions
    WHERE {_SPAN} AND occurred_at >= $4::date::timestamp AT TIME ZONE 'UTC'
    ORDER BY 2, 3 ON CONFLICT DO NOTHING RETURNING day
)
INSERT INTO analytics_days AS known (tenant_id, day, active_users)
SELECT $1, day, count(*) FROM added GROUP BY day
ON CONFLICT (tenant_id, day) DO UPDATE SET active_users = known.active_users + excluded.active_users
"""  # noqa: S608

ADD_ITEMS_SHOWN = f"""
INSERT INTO analytics_days AS known (tenant_id, day, shown)
SELECT $1, (created_at AT TIME ZONE 'UTC')::date, sum(cardinality(item_ids)) FROM impressions WHERE {_SPAN} GROUP BY 2
ON CONFLICT (tenant_id, day) DO UPDATE SET shown = known.shown + excluded.shown
"""  # noqa: S608

# Interactions from before the first impression, such as an imported history, are excluded as a whole instead of being
# looked up row by row.
ATTRIBUTE = f"""
WITH first_impression AS MATERIALIZED (
    SELECT created_at FROM impressions WHERE tenant_id = $1 ORDER BY created_at LIMIT 1
), uncounted AS (
    SELECT id, user_id, item_id, recommendation_id, occurred_at FROM interactions
    WHERE {_SPAN} AND (recommendation_id IS NOT NULL OR occurred_at >= (SELECT created_at FROM first_impression))
), attributed AS (
    INSERT INTO attributions (tenant_id, interaction_id, recommendation_id)
    SELECT $1, uncounted.id, {FOLLOWED_ANSWER}
    FROM uncounted {followed_answer_joins("$1", str(ATTRIBUTION_HOURS), "uncounted")}
    WHERE {FOLLOWED_ANSWER} IS NOT NULL
    ON CONFLICT (tenant_id, interaction_id) DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM attributed
"""  # noqa: S608

ADVANCE_TOTALS = """
UPDATE analytics_totals SET next_xid = $2::text::xid8, users = users + $3::bigint,
    interactions = interactions + $4::bigint, shown = shown + $5::bigint
WHERE tenant_id = $1
"""

DELETE_OLD_ACTIVE_USERS = "DELETE FROM analytics_active_users WHERE tenant_id = $1 AND day < $2::date"

ADD_RELEASE_MODEL = """
INSERT INTO release_models (tenant_id, release, family, version, auc) VALUES ($1, $2, $3, $4, $5::float8)
ON CONFLICT (tenant_id, release, family) DO NOTHING
RETURNING family
"""

# A release that is made anew of the models that already served promotes none of them.
NOTE_PROMOTION = """
INSERT INTO audit_entries (tenant_id, actor, action, target_kind, target, detail)
SELECT $1::text, $5::text, $8::text, 'model', $3::text || ' ' || $4::text,
    jsonb_build_object('family', $3::text, 'version', $4::text, 'release', $2::text)
    || CASE WHEN $6::text IS NULL THEN '{}' ELSE jsonb_build_object('by', $6::text, 'reason', $7::text) END
WHERE NOT EXISTS (
    SELECT FROM release_models AS served
    WHERE tenant_id = $1::text AND family = $3::text AND version = $4::text AND release = (
        SELECT release FROM release_models AS earlier
        WHERE tenant_id = $1::text AND family = $3::text AND release <> $2::text
        ORDER BY published_at DESC, release DESC LIMIT 1
    )
)
"""

SET_ACCURACY = """
INSERT INTO daily_accuracy (tenant_id, day, release, family, auc, users)
VALUES ($1, $2::date, $3, $4, $5::float8, $6::bigint)
ON CONFLICT (tenant_id, day, release, family)
DO UPDATE SET auc = excluded.auc, users = excluded.users, measured_at = now()
"""
