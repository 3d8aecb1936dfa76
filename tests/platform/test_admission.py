"""How many deploys run, and who is next."""

import threading
from collections.abc import Callable

import pytest

from asgard.errors import TooManyDeploys
from asgard.platform.admission import Admission

DEADLINE_SECONDS = 60


class Visitor:
    """A thread that holds a place until `leave`."""

    def __init__(self, admission: Admission, on_entry: Callable[[], None] = lambda: None) -> None:
        self.waiting, self.inside, self._leave = threading.Event(), threading.Event(), threading.Event()
        self._admission, self._on_entry = admission, on_entry
        self._thread = threading.Thread(target=self._visit, daemon=True)
        self._thread.start()

    def _visit(self) -> None:
        with self._admission.place(self.waiting.set):
            self._on_entry()
            self.inside.set()
            assert self._leave.wait(DEADLINE_SECONDS)

    def is_inside(self) -> bool:
        return self.inside.wait(DEADLINE_SECONDS)

    def is_waiting(self) -> bool:
        return self.waiting.wait(DEADLINE_SECONDS) and not self.inside.is_set()

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()


def never() -> None:
    raise AssertionError("there was no need to wait")


def test_as_many_as_there_are_places_go_in_at_once_and_without_waiting() -> None:
    admission = Admission(places=2, queue=0)
    with admission.place(never), admission.place(never):
        pass


def test_one_more_waits_and_goes_in_when_a_place_is_left() -> None:
    admission = Admission(places=1, queue=1)
    first = Visitor(admission)
    assert first.is_inside()
    second = Visitor(admission)
    assert second.is_waiting()
    first.leave()
    assert second.is_inside()
    second.leave()


def test_who_finds_the_queue_full_is_refused_at_once() -> None:
    admission = Admission(places=1, queue=1)
    first = Visitor(admission)
    assert first.is_inside()
    second = Visitor(admission)
    assert second.is_waiting()
    with pytest.raises(TooManyDeploys), admission.place(never):
        pass
    first.leave()
    second.leave()
    with admission.place(never):  # being refused took nothing away
        pass


def test_the_queue_is_served_in_order() -> None:
    admission = Admission(places=1, queue=20)
    order: list[int] = []
    first = Visitor(admission)
    assert first.is_inside()
    queue = []
    for number in range(20):
        visitor = Visitor(admission, lambda number=number: order.append(number))  # type: ignore[misc]  # a lambda's default
        assert visitor.is_waiting()
        queue.append(visitor)
    for visitor in [first, *queue]:
        assert visitor.is_inside()
        visitor.leave()
    assert order == list(range(20))


def test_a_newcomer_does_not_overtake_the_queue() -> None:
    admission = Admission(places=1, queue=2)
    first = Visitor(admission)
    assert first.is_inside()
    queued = Visitor(admission)
    assert queued.is_waiting()
    newcomer = Visitor(admission)
    assert newcomer.is_waiting()
    first.leave()
    assert queued.is_inside()
    assert newcomer.is_waiting()
    queued.leave()
    newcomer.leave()


def test_a_place_is_left_however_its_holder_ends() -> None:
    admission = Admission(places=1, queue=0)
    with pytest.raises(ZeroDivisionError), admission.place(never):
        raise ZeroDivisionError
    with admission.place(never):
        pass


def test_who_gives_up_while_waiting_leaves_the_queue() -> None:
    admission = Admission(places=1, queue=1)

    def give_up() -> None:
        raise ZeroDivisionError

    first = Visitor(admission)
    assert first.is_inside()
    with pytest.raises(ZeroDivisionError), admission.place(give_up):
        pass
    second = Visitor(admission)
    assert second.is_waiting()
    first.leave()
    assert second.is_inside()
    second.leave()
