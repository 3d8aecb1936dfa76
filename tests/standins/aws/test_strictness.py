"""What the stand-in refuses, asked as the engine asks."""

import json
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import Struct
from pulumi._types import input_type_py_to_pulumi_names
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc
from pulumi_aws.ecr import LifecyclePolicyArgs, RepositoryArgs

from .fixtures import REGION
from .lifecycle_policy import LIFECYCLE_POLICY
from .repository import REPOSITORY
from .stacks import NAME


@pytest.fixture
def stub(aws_provider: int) -> Iterator[provider_pb2_grpc.ResourceProviderStub]:
    with grpc.insecure_channel(f"127.0.0.1:{aws_provider}") as channel:
        found = provider_pb2_grpc.ResourceProviderStub(channel)
        found.Configure(provider_pb2.ConfigureRequest(args=struct({"region": REGION})))
        yield found


def struct(properties: dict[str, Any]) -> Struct:
    made = Struct()
    made.update(properties)
    return made


def problems(stub: Any, kind: str, properties: dict[str, Any]) -> list[str]:
    urn = f"urn:pulumi:iris::project::aws:ecr/{kind}::iris"
    return [
        failure.reason for failure in stub.Check(provider_pb2.CheckRequest(urn=urn, news=struct(properties))).failures
    ]


FILTER = {"filter": "serving", "filterType": "WILDCARD"}
EXCLUDING = {"name": "a", "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION"}


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"name": "a", "colour": "red"}, "Invalid or unknown key. Examine values at 'iris.colour'"),
        ({"name": "a", "arn": "arn:aws:x"}, "Invalid or unknown key. Examine values at 'iris.arn'"),
        ({"name": "a", "tagsAll": {}}, "Invalid or unknown key. Examine values at 'iris.tagsAll'"),
        ({"name": 3}, "expected string, got float"),
        ({}, "Missing required property 'name'"),
        ({"name": "a", "forceDelete": "true"}, "expected boolean, got str"),
        ({"name": "a", "imageTagMutability": "FIXED"}, "expected imageTagMutability to be one of"),
        ({"name": "a", "imageScanningConfiguration": {}}, "Missing required property 'scanOnPush'"),
        ({"name": "a", "imageScanningConfiguration": [{"scanOnPush": True}]}, "expected block, got list"),
        (
            {"name": "a", "encryptionConfigurations": [{"encryptionType": "DES"}]},
            "expected encryptionType to be one of",
        ),
        ({"name": "a", "encryptionConfigurations": [{"key": "x"}]}, "at 'iris.encryptionConfigurations[0].key'"),
        ({"name": "a", "tags": {"a": 1}}, "expected a map of strings"),
        ({"name": "a", "imageTagMutabilityExclusionFilters": [FILTER]}, "can only be used when image_tag_mutability"),
        ({**EXCLUDING, "imageTagMutabilityExclusionFilters": [FILTER] * 6}, "no more than 5"),
        ({**EXCLUDING, "imageTagMutabilityExclusionFilters": [{**FILTER, "filter": "***"}]}, "maximum of 2 wildcards"),
        ({**EXCLUDING, "imageTagMutabilityExclusionFilters": [{**FILTER, "filter": "a b"}]}, "only letters, numbers"),
        (
            {**EXCLUDING, "imageTagMutabilityExclusionFilters": [{"filter": "a"}]},
            "Missing required property 'filterType'",
        ),
    ],
)
def test_what_the_real_provider_refuses_is_refused(stub: Any, properties: dict[str, Any], words: str) -> None:
    [reason] = problems(stub, "repository:Repository", properties)
    assert words in reason


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"repository": "a"}, "Missing required property 'policy'"),
        ({"repository": "a", "policy": "{"}, "contains an invalid JSON"),
        ({"repository": "a", "policy": "{}", "registryId": "1"}, "Invalid or unknown key"),
    ],
)
def test_a_policy_that_is_none_is_refused(stub: Any, properties: dict[str, Any], words: str) -> None:
    [reason] = problems(stub, "lifecyclePolicy:LifecyclePolicy", properties)
    assert words in reason


def test_a_type_or_a_configuration_that_it_does_not_know_is_an_error(stub: Any) -> None:
    with pytest.raises(grpc.RpcError, match="unrecognized resource type"):
        problems(stub, "registryPolicy:RegistryPolicy", {})
    urn = "urn:pulumi:iris::project::pulumi:providers:aws::registry"
    answer = stub.CheckConfig(provider_pb2.CheckRequest(urn=urn, news=struct({"region": REGION, "profile": "x"})))
    assert [failure.reason for failure in answer.failures] == [
        "could not validate provider configuration: Invalid or unknown key. Examine values at 'registry.profile'."
    ]
    with pytest.raises(grpc.RpcError, match="no function aws:ecr/getRepository"):
        stub.Invoke(provider_pb2.InvokeRequest(tok="aws:ecr/getRepository:getRepository"))


def test_its_properties_are_those_of_the_real_providers_package(stub: Any) -> None:
    assert REPOSITORY.inputs.keys() == set(input_type_py_to_pulumi_names(RepositoryArgs).values())
    assert LIFECYCLE_POLICY.inputs.keys() == set(input_type_py_to_pulumi_names(LifecyclePolicyArgs).values())
    assert stub.GetPluginInfo(Empty()).version == version("pulumi-aws")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([("any", {}, 1), ("tagged", {"tagPatternList": ["a"]}, 2)], "any must have the highest rulePriority"),
        ([("tagged", {"tagPatternList": ["a"]}, 1), ("any", {}, 1)], "rulePriority must be unique"),
        ([("tagged", {}, 1)], "exactly one of tagPatternList and tagPrefixList"),
        ([("tagged", {"tagPatternList": ["a"], "tagPrefixList": ["b"]}, 1)], "exactly one of tagPatternList"),
        ([("untagged", {"tagPrefixList": ["b"]}, 1)], "exactly one of tagPatternList"),
        ([("tagged", {"tagPatternList": ["*a*b*c*d*"]}, 1)], "at most four wildcards"),
        ([("any", {"countUnit": "days"}, 1)], "countUnit goes with"),
        ([("any", {"colour": "red"}, 1)], "not allowed by the schema"),
    ],
)
def test_a_policy_that_ecr_would_not_take_is_refused(
    stub: Any, ecr_client: Any, rules: list[tuple[str, dict[str, Any], int]], words: str
) -> None:
    ecr_client.create_repository(repositoryName=NAME)
    written = [
        {
            "rulePriority": priority,
            "selection": {"tagStatus": status, "countType": "imageCountMoreThan", "countNumber": 1, **more},
            "action": {"type": "expire"},
        }
        for status, more, priority in rules
    ]
    properties = {"repository": NAME, "policy": json.dumps({"rules": written}), "region": REGION}
    urn = "urn:pulumi:iris::project::aws:ecr/lifecyclePolicy:LifecyclePolicy::iris"
    with pytest.raises(grpc.RpcError) as raised:
        stub.Create(provider_pb2.CreateRequest(urn=urn, properties=struct(properties)))
    said = str(raised.value.details())
    assert f"creating ECR Lifecycle Policy ({NAME}): " in said
    assert words in said
    with pytest.raises(ecr_client.exceptions.LifecyclePolicyNotFoundException):
        ecr_client.get_lifecycle_policy(repositoryName=NAME)
