"""Whose rows a repository may touch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TenantScope:
    """Every repository takes one, so that no query can be written without saying of which tenant it is.

    It is made in one place for a request, from the credential (`api.edge.auth`), and by the command line from `--tenant`.
    """

    tenant_id: str
