"""What a model's workers count, and how Prometheus reads it: the numbers of all workers, whichever is asked.

Counting is a few additions in memory that the workers of a template share, each in a part of its own, so that a request
pays under a microsecond for it. Text format: https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

import mmap
import os
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import processes

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of latencies; one without bound follows."""

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the buckets of requests that were predicted together; one without bound follows."""

STATUSES = (200, 204, 400, 404, 405, 413, 415, 422, 431, 500, 501, 503)
"""Statuses that are told apart; others are `other`."""

OTHER = "other"
"""Path of requests for which there is no operation: clients must not be able to make labels."""

_WORKERS = 256
_NUMBERS = 4096
"""Of one worker, eight bytes each; memory that is not used is not taken."""

_USED, _PID, _IN_FLIGHT, _QUEUED, _BATCH_SUM = range(5)
_BATCH_BUCKETS = 5
_PATHS = _BATCH_BUCKETS + len(BATCHES) + 1
_PER_PATH = len(STATUSES) + 1 + 1 + len(SECONDS) + 1
_STATUS_INDEX = {status: index for index, status in enumerate(STATUSES)}


class SharedNumbers:
    """The memory, made before workers are forked: a row of numbers for each."""

    def __init__(self, workers: int = _WORKERS) -> None:
        self._view = memoryview(mmap.mmap(-1, workers * _NUMBERS * 8)).cast("d")
        self._taken: dict[int, int] = {}
        self._rows = workers

    def take(self) -> int:
        """A row that no living worker has. Its counts go on: they were of this model, too."""
        row = next(row for row in range(self._rows) if row not in self._taken)
        self._taken[row] = 0
        return row

    def assign(self, row: int, pid: int) -> None:
        """The worker that has the row."""
        self._taken[row] = pid

    def free(self, pid: int) -> None:
        """For when a worker has ended."""
        for row, holder in list(self._taken.items()):
            if holder == pid:
                numbers = self.row(row)
                numbers[_PID] = numbers[_IN_FLIGHT] = numbers[_QUEUED] = 0
                del self._taken[row]

    def row(self, row: int) -> "memoryview[float]":
        """One worker's numbers."""
        return self._view[row * _NUMBERS : (row + 1) * _NUMBERS]

    def rows(self) -> "Iterator[memoryview[float]]":
        """Those of every worker that ever was."""
        return (self.row(row) for row in range(self._rows) if self.row(row)[_USED])


class Metrics:
    """One worker's counting. `paths`: of its operations, the same in all workers; `info`: the content of /metadata."""

    def __init__(self, shared: SharedNumbers, row: int, paths: Iterable[str], info: Mapping[str, Any]) -> None:
        self._shared = shared
        self._mine = shared.row(row)
        self._mine[_USED], self._mine[_PID] = 1, os.getpid()
        self._mine[_IN_FLIGHT] = self._mine[_QUEUED] = 0
        self._paths = [*paths, OTHER]
        self._begins = {path: _PATHS + index * _PER_PATH for index, path in enumerate(self._paths)}
        self._info = info
        if _PATHS + len(self._paths) * _PER_PATH > _NUMBERS:
            raise ValueError(f"{len(self._paths)} paths are too many to be counted")

    def began(self) -> float:
        """A request has come; gives the time to `ended` it with."""
        self._mine[_IN_FLIGHT] += 1
        return time.perf_counter()

    def ended(self, began: float, path: str, status: int) -> float:
        """It was answered; gives the seconds that took."""
        seconds, mine = time.perf_counter() - began, self._mine
        mine[_IN_FLIGHT] -= 1
        begin = self._begins.get(path) or self._begins[OTHER]
        mine[begin + _STATUS_INDEX.get(status, len(STATUSES))] += 1
        begin += len(STATUSES) + 1
        mine[begin] += seconds
        mine[begin + 1 + bisect_left(SECONDS, seconds)] += 1
        return seconds

    def gone(self) -> None:
        """The client of a request left before there was an answer."""
        self._mine[_IN_FLIGHT] -= 1

    def batch(self, requests: int) -> None:
        """So many requests were predicted together."""
        self._mine[_BATCH_SUM] += requests
        self._mine[_BATCH_BUCKETS + bisect_left(BATCHES, requests)] += 1

    def queued(self, change: int) -> None:
        """So many more requests wait for the model."""
        self._mine[_QUEUED] += change

    def text(self) -> bytes:
        """All workers' numbers, in Prometheus' text format."""
        rows = [row.tolist() for row in self._shared.rows()]
        total = [sum(numbers) for numbers in zip(*rows, strict=True)]
        pids = [int(row[_PID]) for row in rows if row[_PID]]
        return "".join((*self._requests(total), *_of_model(total, self._info), *_processes(pids))).encode()

    def _requests(self, total: Sequence[float]) -> Iterator[str]:
        requests: list[str] = []
        errors: list[str] = []
        latencies: list[str] = []
        for path, begin in self._begins.items():
            for index, status in enumerate((*STATUSES, 0)):
                if count := total[begin + index]:
                    sample = f'{{path="{path}",status="{status or OTHER}"}} {count:.0f}\n'
                    requests.append(f"asgard_requests_total{sample}")
                    if not status or status >= 400:
                        errors.append(f"asgard_request_errors_total{sample}")
            begin += len(STATUSES) + 1
            buckets = total[begin + 1 : begin + 2 + len(SECONDS)]
            if any(buckets):
                name = "asgard_request_duration_seconds"
                latencies += _histogram(name, f'path="{path}"', SECONDS, buckets, total[begin])
        yield _head("asgard_requests_total", "counter", "Requests that were answered.")
        yield from requests
        yield _head("asgard_request_errors_total", "counter", "Of them, those with a status from 400 on.")
        yield from errors
        yield _head("asgard_request_duration_seconds", "histogram", "From a request's head to its answer.")
        yield from latencies
        yield _head("asgard_requests_in_flight", "gauge", "Requests that are being answered.")
        yield f"asgard_requests_in_flight {total[_IN_FLIGHT]:.0f}\n"


def _of_model(total: Sequence[float], info: Mapping[str, Any]) -> Iterator[str]:
    yield _head("asgard_queue_depth", "gauge", "Requests that wait for the model.")
    yield f"asgard_queue_depth {total[_QUEUED]:.0f}\n"
    yield _head("asgard_batch_requests", "histogram", "Requests that were predicted together.")
    buckets = total[_BATCH_BUCKETS : _BATCH_BUCKETS + len(BATCHES) + 1]
    yield from _histogram("asgard_batch_requests", "", BATCHES, buckets, total[_BATCH_SUM])
    yield _head("asgard_model_info", "gauge", "What serves; always 1.")
    form = (info.get("compiled") or {}).get("form") or "original"
    labels = {
        "name": info["name"],
        "version": info["version"],
        "run_id": info["run_id"],
        "deployment_id": info["deployment_id"],
        "flavor": info["flavor"],
        "form": form,
    }
    told = ",".join(f'{name}="{_escaped(str(text))}"' for name, text in labels.items())
    yield f"asgard_model_info{{{told}}} 1\n"


def _processes(pids: Sequence[int]) -> Iterator[str]:
    """Of all workers together, under the names that Prometheus' own clients use for one."""
    yield _head("asgard_workers", "gauge", "Worker processes, with those for large bodies that are awake.")
    yield f"asgard_workers {len(pids)}\n"
    seen = [found for pid in pids if (found := processes.usage(pid)) is not None]
    if not seen:
        return
    cpu, memory, files, started = zip(*seen, strict=True)
    yield _head("process_cpu_seconds_total", "counter", "User and system time of the workers.")
    yield f"process_cpu_seconds_total {sum(cpu):.2f}\n"
    yield _head("process_resident_memory_bytes", "gauge", "Resident memory of the workers.")
    yield f"process_resident_memory_bytes {sum(memory)}\n"
    yield _head("process_open_fds", "gauge", "Open file descriptors of the workers.")
    yield f"process_open_fds {sum(files)}\n"
    yield _head("process_start_time_seconds", "gauge", "When the oldest worker began, in seconds since 1970.")
    yield f"process_start_time_seconds {min(started):.2f}\n"


def _histogram(
    name: str, labels: str, bounds: Sequence[float], buckets: Sequence[float], total: float
) -> Iterator[str]:
    before = f"{labels}," if labels else ""
    after = f"{{{labels}}}" if labels else ""
    count = 0.0
    for bound, number in zip((*bounds, float("inf")), buckets, strict=True):
        count += number
        le = "+Inf" if bound == float("inf") else f"{bound:g}"
        yield f'{name}_bucket{{{before}le="{le}"}} {count:.0f}\n'
    yield f"{name}_sum{after} {total:.9g}\n"
    yield f"{name}_count{after} {count:.0f}\n"


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
