"""Errors about tenants that other domains raise."""

from api.http.problems import Unauthorized


class TenantGone(Unauthorized):
    """401: the tenant was deleted while one of its credentials was still cached (for 5 seconds at most)."""
