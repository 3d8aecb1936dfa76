"""`aws:ecr/repository:Repository`.

As in https://github.com/hashicorp/terraform-provider-aws/blob/main/internal/service/ecr/repository.go, and what Pulumi
adds to every type: `region`, `tagsAll`.
"""

import os
import re
from typing import Any, Final

from botocore.exceptions import ClientError
from pulumi.runtime.rpc import UNKNOWN

from .resource import Client, Refused, Resource
from .schema import Properties, Property

REGISTRY: Final = "AWS_STANDIN_REGISTRY"
"""Environment variable: `host:port` that a `repositoryUrl` gets in place of ECR's host."""

_WITH_EXCLUSION: Final = ("IMMUTABLE_WITH_EXCLUSION", "MUTABLE_WITH_EXCLUSION")


def _wrong_filter(value: str) -> str | None:
    if not 1 <= len(value) <= 128:
        return "expected length of filter to be in the range (1 - 128)"
    if not re.fullmatch(r"[a-zA-Z0-9._*-]+", value):
        return "must contain only letters, numbers, and special characters (._*-)"
    if value.count("*") > 2:
        return "Image tag mutability exclusion filter can contain a maximum of 2 wildcards (*)"
    return None


INPUTS: Final = {
    "name": Property("string", required=True, replaces=True),
    "region": Property("string", replaces=True, computed=True),
    "forceDelete": Property("boolean"),
    "imageTagMutability": Property("string", default="MUTABLE", choices=("MUTABLE", "IMMUTABLE", *_WITH_EXCLUSION)),
    "imageTagMutabilityExclusionFilters": Property(
        "blocks",
        at_most=5,
        fields={
            "filter": Property("string", required=True, wrong=_wrong_filter),
            "filterType": Property("string", required=True, choices=("WILDCARD",)),
        },
    ),
    "imageScanningConfiguration": Property(
        "block", kept_when_missing=True, fields={"scanOnPush": Property("boolean", required=True)}
    ),
    "encryptionConfigurations": Property(
        "blocks",
        replaces=True,
        kept_when_missing=True,
        fields={
            "encryptionType": Property("string", default="AES256", choices=("AES256", "KMS", "KMS_DSSE")),
            "kmsKey": Property("string", computed=True),
        },
    ),
    "tags": Property("strings"),
}


def _problems(inputs: Properties) -> list[str]:
    filters = inputs.get("imageTagMutabilityExclusionFilters")
    if filters and inputs["imageTagMutability"] not in (*_WITH_EXCLUSION, UNKNOWN):
        return [
            "image_tag_mutability_exclusion_filter can only be used when image_tag_mutability is set to "
            "IMMUTABLE_WITH_EXCLUSION or MUTABLE_WITH_EXCLUSION"
        ]
    return []


def _create(client: Client, plan: Properties) -> str:
    encryption = plan.get("encryptionConfigurations") or []
    made = client.create_repository(
        repositoryName=plan["name"],
        **_mutability(plan),
        **_given("imageScanningConfiguration", plan.get("imageScanningConfiguration")),
        **_given("encryptionConfiguration", {k: v for k, v in encryption[0].items() if v} if encryption else None),
        **_given("tags", _tags(plan["tagsAll"])),
    )
    name: str = made["repository"]["repositoryName"]
    return name


def _read(client: Client, identifier: str, state: Properties) -> Properties | None:
    try:
        found = client.describe_repositories(repositoryNames=[identifier])["repositories"][0]
    except ClientError as error:
        if error.response["Error"]["Code"] == "RepositoryNotFoundException":
            return None
        raise
    listed = client.list_tags_for_resource(resourceArn=found["repositoryArn"])["tags"]
    tags = {item["Key"]: item["Value"] for item in listed}
    encryption = found["encryptionConfiguration"]
    url: str = found["repositoryUri"]
    if local := os.environ.get(REGISTRY):
        url = f"{local}/{found['repositoryName']}"
    return {
        "name": found["repositoryName"],
        "arn": found["repositoryArn"],
        "registryId": found["registryId"],
        "repositoryUrl": url,
        "imageTagMutability": found["imageTagMutability"],
        "imageTagMutabilityExclusionFilters": found.get("imageTagMutabilityExclusionFilters", []),
        "imageScanningConfiguration": found["imageScanningConfiguration"],
        "encryptionConfigurations": [
            {"encryptionType": encryption["encryptionType"], "kmsKey": encryption.get("kmsKey", "")}
        ],
        "tags": tags,
        "tagsAll": tags,
    }


def _update(client: Client, identifier: str, state: Properties, plan: Properties) -> None:
    where = {"registryId": state["registryId"], "repositoryName": identifier}
    if _mutability(state) != _mutability(plan):
        client.put_image_tag_mutability(**where, **_mutability(plan))
    scanning = plan.get("imageScanningConfiguration") or {"scanOnPush": False}
    if state.get("imageScanningConfiguration") != scanning:
        client.put_image_scanning_configuration(**where, imageScanningConfiguration=scanning)
    former, tags = state.get("tagsAll") or {}, plan["tagsAll"]
    if gone := sorted(former.keys() - tags.keys()):
        client.untag_resource(resourceArn=state["arn"], tagKeys=gone)
    if changed := {key: value for key, value in tags.items() if former.get(key) != value}:
        client.tag_resource(resourceArn=state["arn"], tags=_tags(changed))


def _delete(client: Client, identifier: str, state: Properties) -> None:
    try:
        client.delete_repository(
            repositoryName=identifier, registryId=state["registryId"], force=state.get("forceDelete", False)
        )
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "RepositoryNotEmptyException":
            raise Refused(
                f"ECR Repository ({identifier}) not empty, consider using force_delete: {error.response['Error']}"
            ) from error
        if code != "RepositoryNotFoundException":
            raise


def _mutability(state: Properties) -> Properties:
    filters = state.get("imageTagMutabilityExclusionFilters") or []
    return {
        "imageTagMutability": state["imageTagMutability"],
        **_given("imageTagMutabilityExclusionFilters", filters or None),
    }


def _given(name: str, value: Any) -> Properties:
    return {} if value is None else {name: value}


def _tags(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


REPOSITORY: Final = Resource(
    token="aws:ecr/repository:Repository",
    title="ECR Repository",
    inputs=INPUTS,
    schema={**INPUTS, "tagsAll": Property("strings")},
    outputs=("arn", "registryId", "repositoryUrl"),
    problems=_problems,
    complete=lambda inputs: {**inputs, "tagsAll": inputs.get("tags") or {}},
    normal=lambda state: state,
    same=lambda name, old, new: False,
    create=_create,
    read=_read,
    update=_update,
    delete=_delete,
)
