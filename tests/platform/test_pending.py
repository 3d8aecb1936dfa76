"""States as `pulumi stack export` gives them, in which a dead or failed operation left something undecided."""

from typing import Any

import pytest

from asgard.platform import pending

SERVICE = {
    "urn": "urn:pulumi:iris::asgard-models::kubernetes:core/v1:Service::iris",
    "type": "kubernetes:core/v1:Service",
    "custom": True,
    "inputs": {"metadata": {"namespace": "asgard", "name": "iris"}},
}
NAMESPACE = {**SERVICE, "type": "kubernetes:core/v1:Namespace", "inputs": {"metadata": {"name": "asgard"}}}
IMAGE = {**SERVICE, "type": "asgard:index:Image", "inputs": {"name": "iris"}}
REPOSITORY = {**SERVICE, "type": "aws:ecr/repository:Repository", "inputs": {"name": "asgard-model/iris"}}


def state(*resources: dict[str, Any], **pending: dict[str, Any]) -> dict[str, Any]:
    operations = [{"resource": resource, "type": kind} for kind, resource in pending.items()]
    return {"version": 3, "deployment": {"resources": list(resources), "pending_operations": operations}}


@pytest.mark.parametrize(
    ("resource", "identifier"),
    [(SERVICE, "asgard/iris"), (NAMESPACE, "asgard"), (IMAGE, "iris"), (REPOSITORY, "asgard-model/iris")],
)
def test_what_was_being_created_is_taken_for_made_under_the_id_that_it_was_to_have(
    resource: dict[str, Any], identifier: str
) -> None:
    found = state(creating=resource)
    assert pending.taken_over(found)
    assert found["deployment"] == {"resources": [{**resource, "id": identifier}]}


def test_what_was_to_replace_another_is_taken_for_one_to_delete() -> None:
    secret = {**SERVICE, "type": "kubernetes:core/v1:Secret"}
    old = {**secret, "id": "asgard/iris-1"}
    new = {**secret, "inputs": {"metadata": {"namespace": "asgard", "name": "iris-2"}}}
    found = state(old, creating=new)
    pending.taken_over(found)
    assert found["deployment"]["resources"] == [old, {**new, "id": "asgard/iris-2", "delete": True}]


def test_what_the_state_has_already_is_not_taken_twice() -> None:
    made = {**SERVICE, "id": "asgard/iris"}
    found = state(made, creating=SERVICE)
    pending.taken_over(found)
    assert found["deployment"]["resources"] == [made]


def test_a_creation_whose_id_nobody_can_know_is_dropped() -> None:
    found = state(creating={**SERVICE, "type": "pulumi:providers:kubernetes", "inputs": {}})
    assert pending.taken_over(found)
    assert found["deployment"] == {"resources": []}


@pytest.mark.parametrize("found", [{"version": 3, "deployment": {}}, {"version": 3, "deployment": None}, state()])
def test_a_state_without_undecided_creations_stays(found: dict[str, Any]) -> None:
    assert not pending.taken_over(found)


def test_other_undecided_operations_are_what_a_refresh_finds_out_by_itself() -> None:
    assert not pending.taken_over(state(SERVICE, updating=SERVICE))


SECRET = {**SERVICE, "type": "kubernetes:core/v1:Secret"}
FIRST = {**SECRET, "id": "asgard/iris-1", "created": "2026-01-01T00:00:01.5Z"}
SECOND = {**SECRET, "id": "asgard/iris-2", "created": "2026-01-01T00:00:02.25Z"}
DELETE = {"delete": True}


def test_the_secret_that_a_failed_update_was_to_replace_is_the_stacks_own_again_however_often_it_is_asked() -> None:
    found = state(SECOND, SERVICE, {**FIRST, **DELETE})
    assert pending.taken_back(found)
    expected = [FIRST, SERVICE, {**SECOND, **DELETE}]
    assert found["deployment"]["resources"] == expected
    assert not pending.taken_back(found)
    assert found["deployment"]["resources"] == expected


def test_of_several_secrets_the_one_that_was_made_first_counts_and_an_undecided_one_last() -> None:
    third = {**SECRET, "id": "asgard/iris-3", **DELETE}
    found = state(third, SECOND, {**FIRST, **DELETE})
    assert pending.taken_back(found)
    assert found["deployment"]["resources"] == [third, FIRST, {**SECOND, **DELETE}]


@pytest.mark.parametrize(
    "found",
    [
        {"version": 3, "deployment": None},
        state(),
        state(SERVICE, FIRST),
        state({**FIRST, **DELETE}),
        state({**SERVICE, "created": "2"}, {**SERVICE, "created": "1", **DELETE}),
    ],
    ids=["empty", "no resources", "one secret", "none that counts", "others than secrets"],
)
def test_a_state_in_which_no_secret_was_to_replace_another_stays(found: dict[str, Any]) -> None:
    assert not pending.taken_back(found)
