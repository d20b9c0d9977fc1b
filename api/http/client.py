"""The address of the client that sent a request."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.requests import Request
from starlette.types import Scope

from api.http.headers import header_list

Network = IPv4Network | IPv6Network


def network_of(address: str) -> str:
    """The network of an address that `ClientAddress.of` found: the /24 of an IPv4 address, the /64 of an IPv6 address.

    Whoever gets another address of a provider or an office usually stays in it.
    """
    if "/" in address or not _is_address(address):
        return address
    return str(ip_network((address, 24), strict=False))


class ClientAddress:
    """Finds the client behind trusted proxies. `X-Forwarded-For` is ignored where it comes from anyone else."""

    def __init__(self, trusted_proxies: tuple[str, ...]) -> None:
        self._trusted: list[Network] = [ip_network(proxy) for proxy in trusted_proxies]

    def of(self, scope: Scope, forwarded: str | None) -> str:
        """The client's address. Of an IPv6 address it is the /64 network, all of which one client usually owns."""
        return _group(self.whole(scope, forwarded))

    def whole(self, scope: Scope, forwarded: str | None) -> str:
        """The client's address; empty where there is none."""
        peer = scope["client"][0] if scope.get("client") else ""
        if self._trusted and forwarded and self._is_trusted(peer):
            for hop in reversed([hop.strip() for hop in forwarded.split(",")]):
                if not _is_address(hop):
                    break
                peer = hop
                if not self._is_trusted(hop):
                    break
        return peer

    def of_request(self, request: Request) -> str:
        """The address of the client that sent this request."""
        return self.of(request.scope, header_list(request.scope, b"x-forwarded-for"))

    def _is_trusted(self, address: str) -> bool:
        if not _is_address(address):
            return False
        parsed = ip_address(address)
        # On a socket for both kinds of addresses, a proxy with an IPv4 address has one that is mapped into IPv6.
        found = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(found in network for network in self._trusted)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def _group(address: str) -> str:
    if not _is_address(address):
        return address
    parsed = ip_address(address)
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed) >> 64 << 64, 64)))
