"""Which answer an interaction followed from: the one definition, for the pipeline's counts and for figures on request.

The SQL forms are parts of statements over the tables `interactions` and `impressions`.
"""

ATTRIBUTION_HOURS = 24
"""An interaction that names no answer is attributed to the newest answer of these hours that showed its user the item,
unless another window is asked for."""


def followed_answer_joins(tenant: str, hours: str, event: str) -> str:
    """Joins that give an interaction `FOLLOWED_ANSWER`: the answer that it followed from, or null.

    That is the answer which the interaction names, where that showed the item; otherwise the newest one that showed the
    item to the user within the window before the interaction. Where it is known what the user saw of an answer
    (`seen_impressions`), it showed these items and no others.

    Args:
        tenant, hours: the tenant's id and the length of the window, as SQL.
        event: the name of a row with the columns `user_id, item_id, recommendation_id, occurred_at`.
    """
    return f"""
    LEFT JOIN LATERAL (
        SELECT recommendation_id FROM impressions
        WHERE tenant_id = {tenant} AND recommendation_id = {event}.recommendation_id
            AND {event}.item_id = ANY (item_ids)
        LIMIT 1
    ) AS named ON true
    LEFT JOIN LATERAL (
        SELECT recommendation_id FROM impressions
        WHERE named.recommendation_id IS NULL AND tenant_id = {tenant} AND user_id = {event}.user_id
            AND created_at <= {event}.occurred_at
            AND created_at > {event}.occurred_at - {hours} * interval '1 hour'
            AND {event}.item_id = ANY (item_ids)
            AND (
                SELECT coalesce(bool_or(seen.item_id = {event}.item_id), true) FROM seen_impressions AS seen
                WHERE seen.tenant_id = {tenant} AND seen.recommendation_id = impressions.recommendation_id
            )
        ORDER BY created_at DESC LIMIT 1
    ) AS shown ON true
    """  # noqa: S608 - parts of statements of this code base


FOLLOWED_ANSWER = "coalesce(named.recommendation_id, shown.recommendation_id)"
"""What `followed_answer_joins` finds."""
