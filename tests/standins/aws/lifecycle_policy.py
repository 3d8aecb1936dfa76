"""`aws:ecr/lifecyclePolicy:LifecyclePolicy`, and what ECR does by such a policy.

As in https://github.com/hashicorp/terraform-provider-aws/blob/main/internal/service/ecr/lifecycle_policy.go. The policy
as a string only: the real provider takes an object too.
"""

import fnmatch
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError
from pulumi.runtime.rpc import UNKNOWN

from .resource import Client, Refused, Resource, canonical
from .schema import Properties, Property


def _wrong_policy(value: str) -> str | None:
    try:
        json.loads(value)
    except ValueError as error:
        return f'"policy" contains an invalid JSON: {error}'
    return None


INPUTS: Final = {
    "policy": Property("string", required=True, replaces=True, wrong=_wrong_policy),
    "repository": Property("string", required=True, replaces=True),
    "region": Property("string", replaces=True, computed=True),
}
_GONE: Final = ("LifecyclePolicyNotFoundException", "RepositoryNotFoundException")


def refuse(policy: str) -> None:
    """Raise Refused for what ECR would not take and moto does.

    Source: https://docs.aws.amazon.com/AmazonECR/latest/userguide/lifecycle_policy_parameters.html.
    """
    try:
        problem = _problem(json.loads(policy)["rules"])
    except (KeyError, TypeError):
        return  # moto says what is missing
    if problem:
        raise Refused(
            "InvalidParameterException: Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: "
            f"'Lifecycle policy validation failure: {problem}'"
        )


def _problem(rules: list[dict[str, Any]]) -> str | None:
    priorities = [rule["rulePriority"] for rule in rules]
    if len(set(priorities)) != len(priorities):
        return "rulePriority must be unique"
    for rule in rules:
        selection = rule["selection"]
        lists = [name for name in ("tagPatternList", "tagPrefixList") if selection.get(name)]
        if selection["tagStatus"] == "any" and rule["rulePriority"] != max(priorities):
            return "a rule with tagStatus any must have the highest rulePriority"
        if len(lists) != (selection["tagStatus"] == "tagged"):
            return "exactly one of tagPatternList and tagPrefixList goes with tagStatus tagged, and with no other"
        if any(pattern.count("*") > 4 for pattern in selection.get("tagPatternList", ())):
            return "at most four wildcards in a pattern"
        if (selection["countType"] == "sinceImagePushed") != ("countUnit" in selection):
            return "countUnit goes with countType sinceImagePushed, and with no other"
    return None


@dataclass(frozen=True)
class Image:
    """One in a repository. `pushed`: the higher, the younger."""

    tags: tuple[str, ...]
    pushed: int


def expired(policy: str, images: Sequence[Image]) -> set[Image]:
    """Images that ECR would expire. Rules that count images, no other.

    Source, "Lifecycle policy evaluation rules":
    https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html. An image that matches the tagging
    requirements of a rule cannot be expired by a rule with a lower priority, whose count it is nevertheless part of.
    """
    gone: set[Image] = set()
    matched: set[Image] = set()
    for rule in sorted(json.loads(policy)["rules"], key=lambda rule: rule["rulePriority"]):
        selection = rule["selection"]
        assert selection["countType"] == "imageCountMoreThan"
        selected = [image for image in images if _selects(selection, image.tags)]
        youngest = sorted(selected, key=lambda image: -image.pushed)[: selection["countNumber"]]
        gone |= set(selected) - set(youngest) - matched
        matched |= set(selected)
    return gone


def _selects(selection: dict[str, Any], tags: Sequence[str]) -> bool:
    if selection["tagStatus"] != "tagged":
        return selection["tagStatus"] == "any" or not tags
    # Brackets and question marks, which fnmatch knows too, cannot be in a tag.
    patterns = selection.get("tagPatternList") or [f"{prefix}*" for prefix in selection["tagPrefixList"]]
    return all(any(fnmatch.fnmatchcase(tag, pattern) for tag in tags) for pattern in patterns)


def _create(client: Client, plan: Properties) -> str:
    refuse(plan["policy"])
    made = client.put_lifecycle_policy(repositoryName=plan["repository"], lifecyclePolicyText=plan["policy"])
    name: str = made["repositoryName"]
    return name


def _read(client: Client, identifier: str, state: Properties) -> Properties | None:
    try:
        found = client.get_lifecycle_policy(repositoryName=identifier)
    except ClientError as error:
        if error.response["Error"]["Code"] in _GONE:
            return None
        raise
    return {
        "policy": canonical(found["lifecyclePolicyText"]),
        "registryId": found["registryId"],
        "repository": found["repositoryName"],
    }


def _delete(client: Client, identifier: str, state: Properties) -> None:
    try:
        client.delete_lifecycle_policy(repositoryName=identifier)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _GONE:
            raise


def _never(client: Client, identifier: str, state: Properties, plan: Properties) -> None:
    raise AssertionError("every change replaces it")


def _normal(state: Properties) -> Properties:
    return state if state["policy"] == UNKNOWN else {**state, "policy": canonical(state["policy"])}


def _same(name: str, old: Any, new: Any) -> bool:
    return name == "policy" and UNKNOWN not in (old, new) and _sorted_rules(old) == _sorted_rules(new)


def _sorted_rules(policy: str) -> Any:
    """The order of rules and of tags in a list says nothing."""
    document = json.loads(policy)
    for rule in document.get("rules", []):
        for name in ("tagPatternList", "tagPrefixList"):
            if name in rule["selection"]:
                rule["selection"][name] = sorted(rule["selection"][name])
    return {**document, "rules": sorted(document.get("rules", []), key=lambda rule: rule["rulePriority"])}


LIFECYCLE_POLICY: Final = Resource(
    token="aws:ecr/lifecyclePolicy:LifecyclePolicy",
    title="ECR Lifecycle Policy",
    inputs=INPUTS,
    schema=INPUTS,
    outputs=("registryId",),
    problems=lambda inputs: [],
    complete=lambda inputs: inputs,
    normal=_normal,
    same=_same,
    create=_create,
    read=_read,
    update=_never,
    delete=_delete,
    deletes_first=True,
)
