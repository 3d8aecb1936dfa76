"""What the server of a bundle hears from its parent and answers, as in the first version: not to be changed.

Bundles are kept for as long as somebody may roll back to them, and run by the parent of whatever version is installed.
"""

import json
import os
import signal
import socket
import sys


def main() -> None:
    """`python -m asgard_server --template-fd N BUNDLE`: forks a worker for each byte."""
    option, number, _bundle = sys.argv[1:]
    assert option == "--template-fd"
    control = socket.socket(fileno=int(number))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    tell(control, event="imported")
    while True:
        message, descriptors, _flags, _address = socket.recv_fds(control, 1, 4)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            work(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        tell(control, event="forked", pid=pid)


def work(status: int, output: int, listener: int) -> None:
    """A worker that answers every request alike until it is told to end."""
    os.setsid()
    os.dup2(output, 1)
    told, listening = socket.socket(fileno=status), socket.socket(fileno=listener)
    tell(told, event="healthy", health_check="loaded")
    told.recv(1)
    tell(told, event="serving")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        client, _address = listening.accept()
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nfirst")
        client.close()


def tell(connection: socket.socket, **fields: object) -> None:
    """One line of JSON."""
    connection.sendall(json.dumps(fields).encode() + b"\n")


if __name__ == "__main__":
    main()
