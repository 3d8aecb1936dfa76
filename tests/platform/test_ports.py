"""Ports on the loopback, and who may have one."""

import socket

from asgard.platform import ports


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server((ports.HOST, 0)) as listener:
        assert not ports.is_free(listener.getsockname()[1])


def test_a_port_is_free_as_soon_as_its_server_ended_whatever_connections_the_kernel_remembers() -> None:
    with socket.create_server((ports.HOST, 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((ports.HOST, port)) as client:
            accepted, _ = listener.accept()
            accepted.close()  # the side that closes first keeps the port in TIME_WAIT
            assert client.recv(1) == b""
    assert ports.is_free(port)
