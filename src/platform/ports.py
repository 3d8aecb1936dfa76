"""Ports on the loopback that are allocated once and kept: those of models on this machine, and MLflow's."""

import random
import socket
from collections.abc import Container
from typing import Final

from ..errors import InfrastructureFailed
from ..stacks.provider.local_server import HOST as HOST

RANGE: Final = range(20000, 30000)
"""Below the ports that the kernel gives to outgoing connections."""


def allocate(taken: Container[int]) -> int:
    """A port that nobody listens on and that no other stack file holds, at random so that data folders rarely meet."""
    for port in random.sample(RANGE, len(RANGE)):
        if port not in taken and is_free(port):
            return port
    raise InfrastructureFailed(f"No port between {RANGE.start} and {RANGE.stop - 1} is free.", reason="PortTaken")


def is_free(port: int) -> bool:
    """Whether nobody listens on it; connections that the kernel remembers of a server that ended do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
