"""When the pods of a new version are given up, and when only they serve."""

import threading
from typing import Any

import pytest
from lightkube.models.apps_v1 import DeploymentSpec, DeploymentStatus
from lightkube.models.core_v1 import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateWaiting,
    ContainerStatus,
    PodTemplateSpec,
)
from lightkube.models.core_v1 import PodStatus as Status
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod

from asgard.platform import cluster, rollouts
from asgard.platform.rollouts import Waits
from asgard.settings import Settings

from .test_cluster import SPEC


def pod(name: str, reason: str | None = None, restarts: int = 0) -> Pod:
    waiting = ContainerState(waiting=ContainerStateWaiting(reason=reason))
    state = waiting if reason else ContainerState(running=ContainerStateRunning())
    container = ContainerStatus(name="model", image="", imageID="", ready=False, restartCount=restarts, state=state)
    return Pod(metadata=ObjectMeta(name=name), status=Status(containerStatuses=[container]))


def test_a_pod_that_crashed_three_times_is_hopeless_and_one_that_crashed_twice_is_not() -> None:
    assert Waits().hopeless([pod("a"), pod("b", "CrashLoopBackOff", restarts=2)], 0)
    assert not Waits().hopeless([pod("a"), pod("b", "CrashLoopBackOff", restarts=1)], 0)


def test_a_pod_that_runs_after_crashes_is_not_hopeless() -> None:
    assert not Waits().hopeless([pod("a", restarts=9)], 0)


def test_an_image_that_cannot_be_pulled_is_waited_for_a_while_whatever_the_wait_is_called() -> None:
    waits = Waits()
    assert not waits.hopeless([pod("a", "ErrImagePull")], 0)
    assert not waits.hopeless([pod("a", "ImagePullBackOff")], 39)
    assert waits.hopeless([pod("a", "ErrImagePull")], 40)


def test_each_pod_has_its_own_time() -> None:
    waits = Waits()
    waits.hopeless([pod("a", "ErrImagePull")], 0)
    assert not waits.hopeless([pod("b", "ErrImagePull")], 60)


@pytest.mark.parametrize(("reason", "hopeless"), [("InvalidImageName", True), ("ContainerCreating", False)])
def test_what_can_never_mend_is_hopeless_at_once_and_what_is_under_way_never(reason: str, hopeless: bool) -> None:
    assert Waits().hopeless([pod("a", reason)], 0) is hopeless


def test_a_pod_of_which_nothing_is_known_yet_is_not_hopeless() -> None:
    assert not Waits().hopeless([Pod(metadata=ObjectMeta(name="a"))], 0)


CRASHED = pod("new", "CrashLoopBackOff", restarts=5)


def watch(monkeypatch: pytest.MonkeyPatch, *looks: Any) -> bool:
    """Whether it was given up after those answers of the cluster, of which the last one lasts."""
    given_up, seen = threading.Event(), threading.Event()
    answers = list(looks)

    def pods(*_: Any) -> list[Pod]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if len(answers) == 1:
            seen.set()
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    monkeypatch.setattr(cluster, "pods", pods)
    monkeypatch.setattr(rollouts, "_LOOK_SECONDS", 0.01)
    with rollouts.watched(Settings(), SPEC, given_up.set):
        assert seen.wait(10)
        return given_up.wait(0.3)


def test_a_new_pod_that_is_hopeless_ends_the_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch(monkeypatch, [], [pod("new")], [CRASHED])


def test_pods_that_were_there_before_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not watch(monkeypatch, [CRASHED], [CRASHED, pod("newer")])


def test_a_cluster_that_does_not_answer_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not watch(monkeypatch, OSError("no route"))


def test_a_cluster_that_answers_again_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch(monkeypatch, [], OSError("no route"), [CRASHED])


def deployment(*, observed: int = 2, replicas: int = 1, updated: int = 1, available: int = 1) -> Deployment:
    status = DeploymentStatus(
        observedGeneration=observed, replicas=replicas, updatedReplicas=updated, availableReplicas=available
    )
    return Deployment(metadata=ObjectMeta(name="iris", generation=2), spec=ONE, status=status)


ONE = DeploymentSpec(selector=LabelSelector(), template=PodTemplateSpec(), replicas=1)

UNSETTLED = {
    "not seen by its controller": deployment(observed=1),
    "without its new pods": deployment(updated=0),
    "with former pods": deployment(replicas=2),
    "with new pods that are not ready": deployment(available=0),
    "of which nothing is known yet": Deployment(metadata=ObjectMeta(name="iris"), spec=ONE),
}


@pytest.mark.parametrize("state", UNSETTLED)
def test_a_deployment_is_settled_once_its_pods_are_new_and_available(
    monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    answers = [UNSETTLED[state], UNSETTLED[state], deployment()]
    monkeypatch.setattr(cluster, "deployment", lambda *_: answers.pop(0))
    monkeypatch.setattr(rollouts, "_SETTLING_LOOK_SECONDS", 0.0)
    rollouts.settle(Settings(), SPEC)
    assert answers == []


def test_pods_that_never_settle_are_waited_for_until_the_providers_word_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []

    def look(*_: Any) -> Deployment:
        looks.append(None)
        return UNSETTLED["with former pods"]

    monkeypatch.setattr(cluster, "deployment", look)
    for name in ("SETTLING_SECONDS", "_SETTLING_LOOK_SECONDS"):
        monkeypatch.setattr(rollouts, name, 0.01)
    rollouts.settle(Settings(), SPEC)
    assert len(looks) > 1


def test_a_cluster_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: Any) -> Deployment:
        raise OSError("no route")

    monkeypatch.setattr(cluster, "deployment", look)
    rollouts.settle(Settings(), SPEC)
