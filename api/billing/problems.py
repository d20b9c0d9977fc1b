"""The failures of calls to Stripe, as problems of the API."""

from api.http.problems import Conflict, Problem, Unavailable

RETRY_SECONDS = 10


class MissingSetting(Unavailable):
    """503: a setting is missing that billing needs."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Billing needs the setting {name}, which is not set")


class StripeUnavailable(Problem):
    """503: Stripe is slow or down. A retry may succeed."""

    def __init__(self) -> None:
        detail = "The payment service does not answer; nothing was changed, try again in a moment"
        super().__init__(503, detail, headers={"Retry-After": str(RETRY_SECONDS)})


class StripeRefused(Unavailable):
    """503: Stripe returned an error that only the operator can fix, such as a wrong key. The log has it."""

    def __init__(self, detail: str = "The payment service refused the request; the server's log says why") -> None:
        super().__init__(detail)


class CustomerGone(Conflict):
    """409: the tenant's customer was deleted at Stripe. A checkout creates another."""

    def __init__(self) -> None:
        super().__init__("The tenant's customer was deleted at Stripe: begin with POST /api/billing/checkout")
