"""Who is behind a request, and from which address, for the audit trail."""

from starlette.requests import Request

from api.database.origin import Origin
from api.http.client import ClientAddress
from api.http.headers import header_list
from api.http.principal import UserPrincipal, principal_of

NOBODY = "anonymous"


class RequestOrigin:
    """Finds the origin of a request."""

    def __init__(self, address: ClientAddress) -> None:
        self._address = address

    def of(self, request: Request) -> Origin:
        """The user of the request's token and the client's whole address."""
        address = self._address.whole(request.scope, header_list(request.scope, b"x-forwarded-for")) or None
        principal = principal_of(request)
        if isinstance(principal, UserPrincipal):
            return Origin(principal.user_id, address=address)
        return Origin(name=NOBODY, address=address)
