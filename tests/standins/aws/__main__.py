"""The stand-in as a plugin: prints its port, and ends with the engine that has started it."""

import os
import signal

from .servicer import serve

_PARENT_CHECK_SECONDS = 1.0


def main() -> None:
    engine = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    server, port = serve()
    print(port, flush=True)  # noqa: T201 - the protocol
    while os.getppid() == engine:
        server.wait_for_termination(_PARENT_CHECK_SECONDS)
    os._exit(1)


main()
