"""The stand-in as the executable that the engine starts: the engine's address is its argument."""

import argparse
import os
import signal
import threading

from .servicer import serve


def main() -> None:
    """Print the port, then serve until a signal says to end, or until the engine that started this process is gone."""
    parser = argparse.ArgumentParser(prog="pulumi-resource-kubernetes")
    parser.add_argument("-tracing", "--tracing", default="", help="accepted and ignored")
    parser.add_argument("-logflow", "--logflow", action="store_true", help="accepted and ignored")
    parser.add_argument("-logtostderr", "--logtostderr", action="store_true", help="accepted and ignored")
    parser.add_argument("-v", default="", help="accepted and ignored")
    parser.add_argument("engine", nargs="?")
    arguments, _ = parser.parse_known_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    server, port = serve(os.environ, arguments.engine)
    print(port, flush=True)  # noqa: T201
    parent = os.getppid()
    while not stop.wait(0.5) and os.getppid() == parent:
        pass
    server.stop(1).wait()


if __name__ == "__main__":
    main()
