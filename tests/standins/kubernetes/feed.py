"""Everything that happens to some kinds of objects in a namespace, as it happens."""

import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final

from .api import Api, ApiFailure, Unreachable
from .types import Manifest

_TICK_SECONDS: Final = 0.2
_RETRY_SECONDS: Final = 0.5


class Feed:
    """Lists and watches, each kind in a thread. Whoever it is for must be allowed both.

    The real provider waits without end for a kind that it may not watch. Here that is ApiFailure.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._queue: queue.Queue[tuple[str, str, Manifest] | ApiFailure] = queue.Queue()
        self._ended = threading.Event()

    def __enter__(self) -> "Feed":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()

    def subscribe(self, api_version: str, kind: str) -> None:
        threading.Thread(target=self._follow, args=(api_version, kind), daemon=True).start()

    def events(self, until: float, cancelled: threading.Event) -> Iterator[tuple[str, str, Manifest] | None]:
        """Kind, event and object; None now and then when there is nothing new. Ends at the time or when cancelled."""
        while not cancelled.is_set() and time.monotonic() < until:
            try:
                item = self._queue.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                yield None
                continue
            if isinstance(item, ApiFailure):
                raise item
            yield item

    def _follow(self, api_version: str, kind: str) -> None:
        known: dict[str, Manifest] = {}
        while not self._ended.is_set():
            try:
                self._list_and_watch(api_version, kind, known)
            except ApiFailure as failure:
                if failure.code != 410:  # The version is too old: list anew.
                    self._queue.put(failure)
                    return
            except Unreachable:
                self._ended.wait(_RETRY_SECONDS)

    def _list_and_watch(self, api_version: str, kind: str, known: dict[str, Manifest]) -> None:
        plural = self._api.plural(api_version, kind)
        items, version = self._api.list(api_version, plural, self._namespace)
        found = {item["metadata"]["name"]: item for item in items}
        for name in known.keys() - found.keys():
            self._queue.put((kind, "DELETED", known.pop(name)))
        for name, item in found.items():
            known[name] = item
            self._queue.put((kind, "ADDED", item))
        while not self._ended.is_set():
            for event, item in self._api.watch(api_version, plural, self._namespace, version):
                version = item["metadata"]["resourceVersion"]
                if event == "BOOKMARK":
                    continue
                name = item["metadata"]["name"]
                if event == "DELETED":
                    known.pop(name, None)
                else:
                    known[name] = item
                self._queue.put((kind, event, item))
                if self._ended.is_set():
                    return
