"""Whose rows a repository may touch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TenantScope:
    """Every repository takes one, so that no query can be written without saying of which tenant it is.

    For a request it is made in one place, from the credential (`api.http.auth`); the command line makes it from
    `--tenant`.
    """

    tenant_id: str
