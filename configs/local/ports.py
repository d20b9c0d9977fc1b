"""Free ports of this machine."""

import socket


def refusal_of_port(host: str, port: int) -> OSError | None:
    """Why no program could listen there now; None where one could."""
    with _probe(host) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def unused_port(host: str) -> int:
    """A port that nothing listens on, which the system picks."""
    with _probe(host) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _probe(host: str) -> socket.socket:
    probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return probe
