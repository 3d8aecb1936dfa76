"""`python -m asgard_server`: one worker on an inherited socket, or the template that workers are forked from."""

import argparse
import logging
import socket
import sys
from pathlib import Path

from . import processes


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="asgard_server", description="Serve the model of a bundle.")
    parser.add_argument("--fd", type=int, help="inherited listening socket")
    parser.add_argument("--status-fd", type=int, help="inherited socket pair for status lines, see worker.run")
    parser.add_argument("--template-fd", type=int, help="inherited socket pair of a template, see template.run")
    parser.add_argument("bundle", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    processes.allow_files()
    if arguments.template_fd is not None:
        from . import template

        template.run(socket.socket(fileno=arguments.template_fd), arguments.bundle)
        return 0
    if arguments.fd is None or arguments.status_fd is None:
        parser.error("--fd and --status-fd go together")
    from . import worker

    listener, status = (socket.socket(fileno=descriptor) for descriptor in (arguments.fd, arguments.status_fd))
    return worker.run([listener], status, arguments.bundle)


if __name__ == "__main__":
    sys.exit(main())
