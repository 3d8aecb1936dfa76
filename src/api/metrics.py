"""What Prometheus is told about deploys and the API's process.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/. Every label is from a fixed set: stages, and the
codes of the table of problems. Nothing a caller names is one.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from threading import Lock
from typing import Final, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from ..errors import AsgardError
from ..progress import OnProgress, Progress, Stage
from .errors import row

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

DEPLOYED: Final = "deployed"
"""The result of a deploy that went well; any other is the code of a problem."""

_STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """The metrics of one API; threads may use it."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        about = Gauge("asgard_info", "The API that answers; always 1.", ["version"], registry=self._registry)
        about.labels(version("asgard")).set(1)
        self._ended = Counter(
            "asgard_deploys",
            f"Deploys that ended: at which stage, and how: `{DEPLOYED}`, or the code of the problem.",
            ["stage", "result"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "asgard_deploy_stage_seconds",
            "Seconds that stages of deploys took, those that failed too.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        for stage in _STAGES:
            self._seconds.labels(stage)
        self._in_flight = Gauge(
            "asgard_deploys_in_flight", "Deploys that are under way, those that wait too.", registry=self._registry
        )
        self._queued = Gauge("asgard_deploys_queued", "Deploys that wait for a place.", registry=self._registry)

    @contextmanager
    def deploy(self, on_progress: OnProgress) -> Iterator[OnProgress]:
        """One deploy: what it tells to the callback inside the block goes on to `on_progress`."""
        stages = _Stages(self._seconds, self._queued)
        result = DEPLOYED
        try:
            with self._in_flight.track_inprogress():
                yield stages.listening(on_progress)
        except BaseException as error:
            result = row(type(error) if isinstance(error, AsgardError) else AsgardError).code
            raise
        finally:
            self._ended.labels(stages.end() or "none", result).inc()

    def exposed(self) -> bytes:
        """All metrics, as CONTENT_TYPE."""
        return generate_latest(self._registry)


class _Stages:
    """Which stage one deploy is at, and since when."""

    def __init__(self, seconds: Histogram, queued: Gauge) -> None:
        self._seconds = seconds
        self._queued = queued
        self._lock = Lock()
        self._stage: Stage | None = None
        self._began = 0.0

    def listening(self, on_progress: OnProgress) -> Callable[[Progress], None]:
        def listen(progress: Progress) -> None:
            if progress.kind == "stage":
                self._enter(progress.stage)
            on_progress(progress)

        return listen

    def end(self) -> Stage | None:
        """The stage at which the deploy ended; None where it came to none."""
        return self._enter(None)

    def _enter(self, stage: Stage | None) -> Stage | None:
        with self._lock:
            left, now = self._stage, time.monotonic()
            if left is not None:
                self._seconds.labels(left).observe(now - self._began)
            self._queued.inc((stage == "queue") - (left == "queue"))
            self._stage, self._began = stage, now
        return left
