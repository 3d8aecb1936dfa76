"""A real Docker daemon (Debian's docker.io) of the tests' own, with no network and no service of the machine's."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.errors import DockerException

_START_SECONDS = 120
_END_SECONDS = 120


@contextmanager
def running(program: Path, folder: Path) -> Iterator[str]:
    """Yields the DOCKER_HOST of a daemon that keeps all it has in `folder`, and ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    host, log = f"unix://{folder}/socket", folder / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                program, f"--config-file={folder}/config.json", f"--data-root={folder}/data",
                f"--exec-root={folder}/run", f"--pidfile={folder}/pid", f"--host={host}", "--storage-driver=overlay2",
                "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none",
            ],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(host):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield host
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_END_SECONDS)
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for path in sorted((path for path in mounted if path.startswith(f"{folder}/")), reverse=True):
            subprocess.run(["umount", path], check=True)  # it leaves the network namespace that it shared


def _answers(host: str) -> bool:
    try:
        client = docker.DockerClient(base_url=host)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except DockerException:
        return False
