"""Ports for servers that a test starts: given out once, and to nobody else."""

import itertools
import os
import random
import socket
from typing import Final

_PROCESSES: Final = 16
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_mine = range(10000 + _worker % _PROCESSES, 20000, _PROCESSES)
"""Each process of pytest has its own, below those of models and of outgoing connections: a port that the kernel gave
out and got back is soon somebody else's."""
_next = itertools.cycle(random.sample(_mine, len(_mine)))


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    for port in itertools.islice(_next, len(_mine)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError(f"no port of {_mine} is free")
