"""402 problems: what the plan does not allow, and what the tenant can do about it."""

from api.http.problems import QuotaExceeded
from api.http.schemas import rfc3339
from api.metering.terms import Entitlement
from configs.plans import Plan

UPGRADE = "choose a larger plan (POST /api/billing/checkout or /api/billing/portal)"


def budget_refusal(terms: Entitlement) -> QuotaExceeded:
    """The budget of the cycle is spent."""
    wait = f"wait for the next cycle, which starts at {rfc3339(terms.cycle.end)}"
    if terms.plan.overage is None:
        limit = (
            f"The {terms.request_limit:,} requests of this cycle are used, and the plan {terms.plan.name} sells no more"
        )
        return QuotaExceeded(f"{limit}: {UPGRADE}, or {wait}")
    cap = f"Overage has reached the budget cap of {terms.cap_cents / 100:.2f} for this cycle"
    return QuotaExceeded(f"{cap}: raise the cap (PUT /api/billing/overage-cap), or {wait}")


def generation_refusal(terms: Entitlement, users: int, allowed: int) -> QuotaExceeded:
    """A generation job of more users than units are left, those of the jobs that wait taken off."""
    need = f"The job needs {users:,} units, one for each user, and {allowed:,} are left after the jobs that wait"
    wait = f"wait for the next cycle, which starts at {rfc3339(terms.cycle.end)}"
    if terms.plan.overage is None:
        return QuotaExceeded(f"{need}: {UPGRADE}, or {wait}")
    return QuotaExceeded(f"{need}: raise the cap (PUT /api/billing/overage-cap), {UPGRADE}, or {wait}")


def user_refusal(plan: Plan) -> QuotaExceeded:
    """A new user beyond the plan's limit. Only for plans with a limit."""
    return QuotaExceeded(
        f"The plan {plan.name} takes {plan.user_limit:,} users, and this one would be new: {UPGRADE}, or delete users"
    )


def item_refusal(plan: Plan) -> QuotaExceeded:
    """A new item beyond the plan's limit. Only for plans with a limit."""
    return QuotaExceeded(f"The plan {plan.name} takes {plan.item_limit:,} items: {UPGRADE}, or delete items")
