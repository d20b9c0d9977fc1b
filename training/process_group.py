"""Joins the processes that train together, so that they listen where the first one is reached and nowhere else.

Whoever reaches the ports of a group can disturb its fit, and they ask for no token. Left to itself, torch listens on
all network addresses of a machine, and gloo on the address of the machine's name, which is often one of loopback that
other machines cannot reach.
"""

import os
import socket
import struct
from contextlib import suppress
from datetime import timedelta
from fcntl import ioctl

import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

WAIT_FOR_GROUP = timedelta(days=30)
"""It is long because the other processes wait while the first one reads and evaluates. A process that dies is noticed
at once all the same."""

_SIOCGIFADDR = 0x8915


def join_process_group(backend: str = "gloo") -> None:
    """Initialise `torch.distributed` with the group that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT name.

    Under `torchrun`, the processes meet at the store of its agent.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if (interface := interface_to(host)) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # The agent keeps its store over restarts, with the addresses of processes that have died.
        attempt = f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}"
        store: Store = PrefixStore(attempt, TCPStore(host, port, size, is_master=False))
    elif rank:
        store = TCPStore(host, port, size, is_master=False)
    else:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        # The store owns the descriptor from here on.
        store = TCPStore(host, port, size, is_master=True, master_listen_fd=listening.detach())
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=WAIT_FOR_GROUP)


def interface_to(host: str) -> str | None:
    """The network interface by which this machine reaches another one; None where the system does not say.

    An address of IPv6 has an interface here on loopback only.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing
        own = probe.getsockname()[0]
        return "lo" if own == "::1" else interface_of(own)
    return None


def interface_of(address: str) -> str | None:
    """The network interface of this machine with this address of IPv4, as netdevice(7) tells; None without one."""
    for _, name in socket.if_nameindex():
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # OSError: no address
            found = ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return None
