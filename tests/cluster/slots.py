"""What clusters of one machine must not share: each takes a numbered slot, and all its names follow from the number."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from .model import HarnessError

_FOLDER: Final = Path("/run/lock")


@dataclass(frozen=True)
class Slot:
    """`number`: from 1."""

    number: int

    @property
    def network(self) -> str:
        """Name of the pods' network and of its bridge on this machine."""
        return f"asgard-test{self.number}"

    @property
    def pods(self) -> str:
        """First two bytes of the pods' addresses; the bridge has `.0.1`."""
        return f"10.{87 + self.number}"

    @property
    def services(self) -> str:
        """First two bytes of the Services' addresses; the API server is `.0.1` to the pods."""
        return f"10.{103 + self.number}"

    @property
    def cgroup(self) -> str:
        """Parent of all pods' control groups."""
        return f"asgard-test{self.number}"

    def load_balancer_address(self, number: int) -> str:
        """An address on the loopback for the number-th Service, from 0."""
        return f"127.0.{self.number}.{2 + number}"


_SLOTS: Final = [Slot(number) for number in range(1, 9)]


@contextmanager
def claimed(folder: Path) -> Iterator[Slot]:
    """A slot that is nobody else's until the block ends or this process does, for the cluster in `folder`.

    What the cluster leaves, if it does not come to the end of the block, `abandoned` finds. Raises HarnessError when
    all slots are taken.
    """
    for slot in _SLOTS:
        with _held(slot) as held:
            if held and not _record(slot).exists():
                _record(slot).write_text(json.dumps({"folder": str(folder)}))
                yield slot
                _record(slot).unlink()
                return
    raise HarnessError(f"{len(_SLOTS)} test clusters run on this machine already.")


def abandoned() -> Iterator[tuple[Slot, Path]]:
    """Slots and folders of clusters whose process has died. A slot is free once the iteration goes on."""
    for slot in _SLOTS:
        with _held(slot) as held:
            if held and _record(slot).exists():
                yield slot, Path(json.loads(_record(slot).read_text())["folder"])
                _record(slot).unlink()


@contextmanager
def _held(slot: Slot) -> Iterator[bool]:
    """Whether the slot's lock could be had; if so, it is until the block ends."""
    lock = FileLock(_FOLDER / f"asgard-test-cluster-{slot.number}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _record(slot: Slot) -> Path:
    return _FOLDER / f"asgard-test-cluster-{slot.number}.json"
