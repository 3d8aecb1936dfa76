"""One process that is a cluster: it starts all parts, balances load, and takes all away when it is told to end.

It is told by SIGTERM, or by the end of the process it was started for. What is left after it was killed is taken away
by whichever harness has its slot next.
"""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil
from lightkube import AsyncClient, Client
from lightkube.config.kubeconfig import KubeConfig

from ..ports import free_port
from . import access, binaries, images, leftovers, model, node, packages, registry, slots
from .forwarder import Endpoint, Forwarder
from .loadbalancer import LoadBalancer
from .model import Cluster, HarnessError
from .parts import Parts
from .processes import OnLog
from .slots import Slot

_READY: Final = "cluster.json"
_PID: Final = "harness.pid"
_LOG: Final = "harness.log"
_WATCH_SECONDS: Final = 0.5
_END_SECONDS: Final = 120


def start(folder: Path, cache: Path, *, for_process: int | None, on_log: OnLog) -> Cluster:
    """Bring a cluster up in a process of its own; returns when pods can run on it.

    `cache`: for what is built once. `for_process`: the cluster ends with that process; None: with `stop`.
    Raises HarnessError with what is missing or went wrong; nothing is left then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.cluster", "--cache", str(cache), "run", str(folder)]
    with (folder / _LOG).open("wb") as log:
        process = subprocess.Popen(
            [*command, *(["--for-process", str(for_process)] if for_process else [])],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    shown = 0
    while True:
        ended = process.poll() is not None
        lines = (folder / _LOG).read_text(errors="replace").splitlines()
        for line in lines[shown:]:
            on_log(line)
        shown = len(lines)
        if (folder / _READY).exists():
            return model.load(folder / _READY)
        if ended:
            raise HarnessError("The test cluster did not start.", lines[-40:])
        time.sleep(0.1)


def stop(folder: Path) -> None:
    """Take the cluster down that `start` brought up, and wait until nothing of it is left."""
    path = folder / _PID
    if path.exists():
        pid, began = path.read_text().split()
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(pid))
            if process.create_time() == float(began):
                process.terminate()
                process.wait(_END_SECONDS)
    _clean_abandoned()


def _clean_abandoned() -> None:
    for slot, folder in slots.abandoned():
        leftovers.clean(slot, folder)


@dataclass(frozen=True)
class Prepared:
    """`programs`: folder of Kubernetes' own. `base`: tar of the base image. `dockerd`: Docker's daemon."""

    programs: Path
    base: Path
    dockerd: Path


def unavailable() -> str | None:
    """Why no cluster can be had on this machine, whatever is installed and built first; None: it can."""
    try:
        node.check_machine()
        packages.check()
    except HarnessError as error:
        return str(error)
    return None


def prepare(cache: Path, on_log: OnLog) -> Prepared:
    """What takes minutes the first time on a machine: packages, Kubernetes' programs, and the base image's tar.

    Raises HarnessError.
    """
    node.check_machine()
    packages.ensure(on_log)
    return Prepared(
        programs=binaries.find_or_build(cache, on_log),
        base=images.base_layer(cache, on_log),
        dockerd=packages.dockerd(cache, on_log),
    )


def run(folder: Path, cache: Path, for_process: int | None) -> None:
    """The process itself; prints what it does."""

    def say(line: str) -> None:
        print(line, flush=True)  # noqa: T201

    # So that a build, too, is ended with its processes. Once the cluster runs, signals are the event loop's.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    me = psutil.Process()
    (folder / _PID).write_text(f"{me.pid} {me.create_time()}")
    prepared = prepare(cache, say)
    _clean_abandoned()
    with slots.claimed(folder) as slot:
        parts = Parts(folder)
        try:
            asyncio.run(_run(folder, slot, parts, prepared, _ended(for_process), say))
        finally:
            parts.kill()
            leftovers.clean(slot, folder)


def _ended(pid: int | None) -> Callable[[], bool]:
    if pid is None:
        return lambda: False
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return lambda: True
    return lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def _run(
    folder: Path, slot: Slot, parts: Parts, prepared: Prepared, ended: Callable[[], bool], say: OnLog
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    began = time.monotonic()
    cluster = await asyncio.to_thread(_bring_up, folder, slot, parts, prepared)
    say(f"The cluster is up after {time.monotonic() - began:.1f} s.")
    client = AsyncClient(KubeConfig.from_file(cluster.kubeconfig), trust_env=False)
    await Forwarder(lambda: [_api_server(cluster)]).listen(f"{slot.services}.0.1", 443)
    balancing = asyncio.create_task(LoadBalancer(client, folder, slot).run())
    model.save(cluster, folder / _READY)
    while not stop.is_set() and not ended() and not balancing.done():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _WATCH_SECONDS)
        parts.check()
    balancing.cancel()
    with suppress(asyncio.CancelledError):
        await balancing


def _bring_up(folder: Path, slot: Slot, parts: Parts, prepared: Prepared) -> Cluster:
    registry_port = free_port()
    parts.start("registry", registry.command(folder / "registry", registry_port))
    containerd = node.start_containerd(parts, folder, slot)
    images.import_pause(folder, containerd)
    kubeconfig = node.start_control_plane(parts, folder, prepared.programs, slot)
    node.start_kubelet(parts, folder, prepared.programs, slot, containerd)
    parts.wait(lambda: registry.answers(registry_port), "The registry answers", _END_SECONDS)
    base_image = images.push_base(prepared.base, f"127.0.0.1:{registry_port}")
    with Client(KubeConfig.from_file(kubeconfig), trust_env=False) as client:
        node.wait_until_ready(parts, client)
    return Cluster(
        folder=folder,
        kubeconfig=kubeconfig,
        context=access.CONTEXT,
        registry=f"127.0.0.1:{registry_port}",
        base_image=base_image,
        host=f"{slot.pods}.0.1",
    )


def _api_server(cluster: Cluster) -> Endpoint:
    """Where pods are to get when they ask the Service `kubernetes`; of Services in the cluster there is no other."""
    server = urlsplit(json.loads(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    return str(server.hostname), int(server.port or 443)
