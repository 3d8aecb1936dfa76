"""How many deploys run at once, and how many may wait for their turn."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

from ..errors import TooManyDeploys


class Admission:
    """Places for threads, given in the order in which they were asked for.

    `places`: threads that hold one at once. `queue`: threads that may wait for one.
    """

    def __init__(self, places: int, queue: int) -> None:
        self._lock = Lock()
        self._free = places
        self._queue = queue
        self._waiting: deque[Event] = deque()

    @contextmanager
    def place(self, on_waiting: Callable[[], None]) -> Iterator[None]:
        """Hold a place inside the `with`; `on_waiting` is called once if the thread has to wait for it.

        Raises TooManyDeploys at once when all places are taken and the queue is full.
        """
        turn = self._ask()
        try:
            if not turn.is_set():
                on_waiting()
                turn.wait()
            yield
        finally:
            self._leave(turn)

    def _ask(self) -> Event:
        turn = Event()
        with self._lock:
            if self._free:
                self._free -= 1
                turn.set()
            elif len(self._waiting) < self._queue:
                self._waiting.append(turn)
            else:
                raise TooManyDeploys("All places for deploys are taken, and so is the queue. Try again later.")
        return turn

    def _leave(self, turn: Event) -> None:
        with self._lock:
            if not turn.is_set():  # its thread gave up while it waited
                self._waiting.remove(turn)
            elif self._waiting:  # handed over, never freed: a newcomer cannot overtake the queue
                self._waiting.popleft().set()
            else:
                self._free += 1
