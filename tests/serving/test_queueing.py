"""When a request reaches the model: together with others, beside the event loop, or not at all."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from asgard.serving.asking import Asking, Operation
from asgard.serving.loaded import Cost, NotQuick
from asgard.serving.messages import Answer, Request
from asgard.serving.metrics import Metrics, SharedNumbers
from asgard.serving.queueing import BESIDE_SECONDS, QUEUE_MIN, QUEUE_SECONDS, QUICK_BYTES, TURN_SECONDS, Queue

T = TypeVar("T")


class Model:
    """Answers a body with itself, and remembers which were asked together, and in which thread."""

    def __init__(self, pause: float = 0, *, refuses: bytes = b"") -> None:
        self.asked: list[list[bytes]] = []
        self.threads: list[str] = []
        self._pause = pause
        self.refuses = refuses

    def one(self, request: Request) -> Answer:
        return self.many([request])[0]

    def many(self, requests: Sequence[Request]) -> list[Answer]:
        bodies = [request.body for request in requests]
        time.sleep(self._pause)
        self.asked.append(bodies)
        self.threads.append(threading.current_thread().name)
        return [Answer(body) for body in bodies]

    def quick_one(self, request: Request) -> Answer:
        if request.body == self.refuses:
            raise NotQuick
        return self.one(request)

    def quick_many(self, requests: Sequence[Request]) -> list[Answer]:
        if self.refuses in [request.body for request in requests]:
            raise NotQuick
        return self.many(requests)


@pytest.fixture
def run() -> "Run":
    """The answers to bodies that arrive at once, of one client (`alone`) or several."""

    def ask(model: Model, operation: Operation, bodies: list[bytes], *, alone: bool = False) -> list[Answer]:
        async def together() -> list[Answer]:
            queue = Queue(operation, thread, Metrics(SharedNumbers(1), 0, [], {}))
            answers: list[asyncio.Future[Answer]] = [asyncio.Future() for _ in bodies]
            for body, answer in zip(bodies, answers, strict=True):
                queue.ask(Request(body), answer.set_result, alone=alone)
                if alone:
                    assert answer.done() == (body != model.refuses)
            return list(await asyncio.gather(*answers))

        with ThreadPoolExecutor(1, thread_name_prefix="predict") as thread:
            return asyncio.run(together())

    return ask


def quick(model: Model, *, batches: bool = True, cost: Cost | None = None) -> Operation:
    return Operation(
        "POST",
        model=Asking(model.one, model.many if batches else None),
        quick=Asking(model.quick_one, model.quick_many if batches else None),
        cost=cost or Cost(1e-4, 1e-5),
    )


def slow(model: Model, *, batches: bool, cost: Cost | None = None) -> Operation:
    return Operation("POST", model=Asking(model.one, model.many if batches else None), cost=cost)


Run = Callable[..., list[Answer]]


def test_what_arrives_at_once_is_predicted_together_in_the_event_loop(run: Run) -> None:
    model = Model()
    assert [a.body for a in run(model, quick(model), [b"a", b"b", b"c"])] == [b"a", b"b", b"c"]
    assert model.asked == [[b"a", b"b", b"c"]]
    assert model.threads == ["MainThread"]


def test_the_only_client_is_answered_at_once(run: Run) -> None:
    model = Model(refuses=b"b")
    assert [a.body for a in run(model, quick(model), [b"a", b"b", b"c"], alone=True)] == [b"a", b"b", b"c"]
    assert sorted(model.asked) == [[b"a"], [b"b"], [b"c"]]


def test_a_model_that_does_not_batch_is_asked_one_by_one(run: Run) -> None:
    model = Model()
    assert [a.body for a in run(model, quick(model, batches=False), [b"a", b"b"])] == [b"a", b"b"]
    assert model.asked == [[b"a"], [b"b"]]


def test_only_the_request_that_is_not_quick_leaves_the_event_loop(run: Run) -> None:
    model = Model(refuses=b"b")
    assert [a.body for a in run(model, quick(model), [b"a", b"b", b"c"])] == [b"a", b"b", b"c"]
    assert dict(zip([asked[0] for asked in model.asked], [t[:7] for t in model.threads], strict=True)) == {
        b"a": "MainThr",
        b"c": "MainThr",
        b"b": "predict",
    }


def test_a_large_body_is_not_read_in_the_event_loop(run: Run) -> None:
    model = Model()
    large = b"x" * (QUICK_BYTES + 1)
    assert [a.body for a in run(model, quick(model), [large, b"a"])] == [large, b"a"]
    assert sorted(model.threads) == ["MainThread", "predict_0"]


def test_what_comes_while_a_slow_model_predicts_is_predicted_together_next(run: Run) -> None:
    model = Model(pause=0.05)
    bodies = [str(number).encode() for number in range(20)]
    assert [a.body for a in run(model, slow(model, batches=True), bodies)] == bodies
    assert len(model.asked) <= 2
    assert set(model.threads) == {"predict_0"}


def test_more_than_can_wait_is_refused_at_once_and_the_rest_answered(run: Run) -> None:
    model = Model(pause=0.001)
    bodies = [str(number).encode() for number in range(QUEUE_MIN * 2)]
    answers = run(model, slow(model, batches=False, cost=Cost(1, 1)), bodies)
    refused = [answer for answer in answers if answer.status == 503]
    assert QUEUE_MIN - 2 <= len(refused) <= QUEUE_MIN
    assert all(answer.headers == {b"retry-after": b"1"} for answer in refused)
    assert [a.body for a in answers if a.status == 200] == bodies[: len(bodies) - len(refused)]


def test_more_than_a_quick_model_answers_in_time_is_refused_at_once(run: Run) -> None:
    model = Model()
    bodies = [str(number).encode() for number in range(QUEUE_MIN * 2)]
    answers = run(model, quick(model, batches=False, cost=Cost(1, 1)), bodies)
    assert [answer.status for answer in answers] == [200] * QUEUE_MIN + [503] * QUEUE_MIN
    assert model.asked == [[body] for body in bodies[:QUEUE_MIN]]


def test_what_a_request_takes_beside_its_prediction_counts_where_it_is_predicted_alone(run: Run) -> None:
    cost = Cost(BESIDE_SECONDS, BESIDE_SECONDS)
    as_predicted = int(QUEUE_SECONDS / BESIDE_SECONDS)
    for batches, waiting in ((True, as_predicted), (False, as_predicted // 2)):
        model = Model()
        answers = run(model, quick(model, batches=batches, cost=cost), [b"x"] * (as_predicted + 10))
        assert abs([answer.status for answer in answers].count(200) - waiting) <= 1


def test_others_get_their_turn_between_those_that_a_quick_model_predicts_one_by_one() -> None:
    model = Model()
    turns: list[int] = []

    async def ask() -> None:
        answers: list[asyncio.Future[Answer]] = [asyncio.Future() for _ in range(6)]
        with ThreadPoolExecutor(1) as thread:
            operation = quick(model, batches=False, cost=Cost(TURN_SECONDS / 2, TURN_SECONDS / 2))
            queue = Queue(operation, thread, Metrics(SharedNumbers(1), 0, [], {}))
            for answer in answers:
                queue.ask(Request(b"x"), answer.set_result, alone=False)
            while not answers[-1].done():
                turns.append(len(model.asked))
                await asyncio.sleep(0)

    asyncio.run(ask())
    assert turns == [0, 2, 4]


def test_a_fast_model_may_have_more_waiting(run: Run) -> None:
    model = Model()
    bodies = [b"x"] * (QUEUE_MIN * 4)
    assert all(a.status == 200 for a in run(model, slow(model, batches=False, cost=Cost(1e-4, 1e-4)), bodies))
