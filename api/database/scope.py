"""The tenant whose rows a repository may read and write."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TenantScope:
    """The tenant that a repository works for. Every repository takes one, so no query can leave the tenant out.

    For a request, the scope comes from the credential (see `api.http.principal`); for a command, from `--tenant`.
    """

    tenant_id: str
