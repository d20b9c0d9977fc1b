"""Joins the processes that train together, so that they listen where the first one is reached and nowhere else.

Whoever reaches the ports of a group can disturb its fit, and they ask for no token. Left to itself, torch listens on
all network addresses of a machine.
"""

import os
import socket
from datetime import timedelta
from ipaddress import ip_address

import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

WAIT_FOR_GROUP = timedelta(days=30)
"""It is long because the other processes wait while the first one reads and evaluates. A process that dies is noticed
at once all the same."""


def join_process_group(backend: str = "gloo") -> None:
    """Initialise `torch.distributed` with the group that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT name.

    Under `torchrun`, the processes meet at the store of its agent.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if _is_loopback(host):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
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


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
