"""`python -m asgard_server.container BUNDLE`: one worker as the first process of a container.

There is no parent: whoever runs containers restarts it, holds its memory, and lets it go with SIGTERM, upon which it
drains as any worker does. What it prints is the container's log.
"""

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from . import options
from .processes import MEMORY_LIMIT, allow_files, worker_environment

_CGROUP = Path("/sys/fs/cgroup")

log = logging.getLogger(__name__)


def main() -> int:
    """The exit code: 0 after a drain, 1 where the model cannot serve."""
    parser = argparse.ArgumentParser(prog="asgard_server.container", description="Serve the model of a bundle.")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a container's own address
    parser.add_argument("--port", type=int, default=options.PORT)
    parser.add_argument("bundle", type=Path)
    arguments = parser.parse_args()
    # The kernel keeps signals from the first process of a container that has no handler for them.
    signal.signal(signal.SIGTERM, _end)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    allow_files()
    cores = cpu_limit(_CGROUP)
    if cores is not None:
        log.info("limited to %g cores", cores)
        variables = worker_environment({}, os.environ, "", int(cores * 1000))
        os.environ.update({name: value for name, value in variables.items() if name != "PYTHONPATH"})
    os.environ[MEMORY_LIMIT] = str(memory_limit(_CGROUP))

    from . import loading, metrics, worker  # with the libraries that read the environment

    try:
        metrics_port = options.read(os.environ).metrics_port
    except ValueError as error:
        parser.error(str(error))
    ports = [arguments.port] if metrics_port is None else [arguments.port, metrics_port]
    listeners = [_bound(arguments.host, port) for port in ports]
    loading.preload(arguments.bundle)
    numbers = metrics.SharedNumbers(2)
    second = worker.fork_second(arguments.bundle, numbers, numbers.take(), listeners)
    ours, theirs = socket.socketpair()
    threading.Thread(target=_report, args=(ours,), daemon=True).start()
    ours.sendall(b"\n")
    return worker.run(listeners, theirs, arguments.bundle, numbers, numbers.take(), second)


def _bound(host: str, port: int) -> socket.socket:
    """Not listened on, so that connections are refused, and do not wait, until the model serves."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


def cpu_limit(cgroup: Path) -> float | None:
    """Cores that this container may use, by version 2 or 1 of control groups; None: all there are.

    Files: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), scheduler/sched-bwc.html (cfs_quota_us).
    """
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except FileNotFoundError:
        try:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except FileNotFoundError:
            return None
    return None if quota.strip() in ("max", "-1") else int(quota) / int(period)


def memory_limit(cgroup: Path) -> int:
    """Bytes of memory that this container may use: all there are, where it is not limited.

    Files: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max), cgroup-v1/memory.html (limit_in_bytes).
    """
    everything = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(FileNotFoundError):
            limit = (cgroup / file).read_text().strip()
            return everything if limit == "max" else min(int(limit), everything)
    return everything


def _end(*_: object) -> None:
    """Before the server has its own handler: nothing is being answered."""
    os._exit(128 + signal.SIGTERM)


def _report(events: socket.socket) -> None:
    with events.makefile() as lines:
        for line in lines:
            log.info("%s", line.strip())


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # a predict that does not end would keep the process
