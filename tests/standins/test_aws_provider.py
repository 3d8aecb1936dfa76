"""The ECR part of a model's stack, and more of it, on the stand-in for the aws provider, driven by the real engine."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi import automation as auto
from pulumi_aws import Provider
from pulumi_aws.ecr import LifecyclePolicy, Repository

from asgard import naming
from asgard.platform.images import oci

from .aws import moto_server, on_path
from .aws.fixtures import REGION
from .aws.lifecycle_policy import Image, expired
from .aws.repository import REGISTRY
from .aws.stacks import NAME, Program, Stack, program


def push(client: Any, tag: str, name: str = NAME) -> None:
    manifest = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "annotations": {"tag": tag}}
    client.put_image(repositoryName=name, imageManifest=json.dumps(manifest), imageTag=tag)


def test_a_models_repository_is_made_as_declared_and_a_preview_then_shows_no_change(
    aws_stack: Stack, ecr_client: Any
) -> None:
    assert aws_stack.preview().ops() == [("create", "Repository"), ("create", "LifecyclePolicy")]
    assert ecr_client.describe_repositories()["repositories"] == []
    made = aws_stack.up()
    assert made.outputs == {"iris": f"{moto_server.ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{NAME}"}

    [found] = ecr_client.describe_repositories()["repositories"]
    assert found["repositoryName"] == NAME
    assert found["imageTagMutability"] == "IMMUTABLE_WITH_EXCLUSION"
    assert found["imageTagMutabilityExclusionFilters"] == [{"filter": "serving", "filterType": "WILDCARD"}]
    assert found["imageScanningConfiguration"] == {"scanOnPush": True}
    assert found["encryptionConfiguration"] == {"encryptionType": "AES256"}
    tags = ecr_client.list_tags_for_resource(resourceArn=found["repositoryArn"])["tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {
        naming.NAME_LABEL: "iris",
        "app.kubernetes.io/managed-by": "asgard",
    }
    kept = json.loads(ecr_client.get_lifecycle_policy(repositoryName=NAME)["lifecyclePolicyText"])
    assert [rule["selection"]["tagStatus"] for rule in kept["rules"]] == ["tagged", "any"]

    for run in (aws_stack.preview(), aws_stack.refresh(), aws_stack.preview(), aws_stack.up()):
        assert run.steps == []
        assert not run.failed


def test_what_somebody_changed_by_hand_is_found_shown_and_put_right(aws_stack: Stack, ecr_client: Any) -> None:
    aws_stack.up()
    arn = ecr_client.describe_repositories()["repositories"][0]["repositoryArn"]
    ecr_client.put_image_tag_mutability(repositoryName=NAME, imageTagMutability="MUTABLE")
    ecr_client.untag_resource(resourceArn=arn, tagKeys=["app.kubernetes.io/managed-by"])
    ecr_client.delete_lifecycle_policy(repositoryName=NAME)
    aws_stack.refresh()
    assert aws_stack.resources()["Repository"]["outputs"]["imageTagMutability"] == "MUTABLE"
    assert "LifecyclePolicy" not in aws_stack.resources()

    label = '["app.kubernetes.io/managed-by"]'
    assert sorted(aws_stack.preview().steps) == [
        ("create", "LifecyclePolicy", {}),
        (
            "update",
            "Repository",
            {
                "imageTagMutability": "update",
                "imageTagMutabilityExclusionFilters[0]": "add",
                f"tags{label}": "add",
                f"tagsAll{label}": "add",
            },
        ),
    ]
    aws_stack.up()
    [found] = ecr_client.describe_repositories()["repositories"]
    assert found["imageTagMutability"] == "IMMUTABLE_WITH_EXCLUSION"
    assert len(ecr_client.list_tags_for_resource(resourceArn=arn)["tags"]) == 2
    assert ecr_client.get_lifecycle_policy(repositoryName=NAME)["repositoryName"] == NAME


def test_a_repository_that_is_gone_is_made_again(aws_stack: Stack, ecr_client: Any) -> None:
    aws_stack.up()
    ecr_client.delete_repository(repositoryName=NAME)
    aws_stack.refresh()
    assert "Repository" not in aws_stack.resources()
    assert not aws_stack.up().failed
    assert ecr_client.get_lifecycle_policy(repositoryName=NAME)["repositoryName"] == NAME


def test_destroy_takes_the_repository_with_its_images(aws_stack: Stack, ecr_client: Any) -> None:
    aws_stack.up()
    push(ecr_client, "iris-v1-1234e5")
    push(ecr_client, naming.SERVING_TAG)
    assert aws_stack.destroy().ops() == [("delete", "LifecyclePolicy"), ("delete", "Repository")]
    assert ecr_client.describe_repositories()["repositories"] == []
    assert not aws_stack.destroy().failed


def test_ten_models_get_their_repositories_at_once(aws_stack: Stack, ecr_client: Any) -> None:
    models = [f"model-{number}" for number in range(10)]
    assert not aws_stack.up(program(*models)).failed
    found = ecr_client.describe_repositories()["repositories"]
    assert {item["repositoryName"] for item in found} == {f"asgard-model/{model}" for model in models}
    assert aws_stack.preview(program(*models)).steps == []
    assert not aws_stack.destroy().failed
    assert ecr_client.describe_repositories()["repositories"] == []


def test_several_stacks_may_use_the_stand_in_at_once(
    aws_provider: int, pulumi_command: auto.PulumiCommand, tmp_path: Path, ecr_client: Any
) -> None:
    stacks = [Stack(tmp_path / str(number), pulumi_command, aws_provider) for number in range(3)]
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda pair: pair[1].up(program(f"model-{pair[0]}")), enumerate(stacks)))
    assert not any(run.failed for run in runs)
    assert len(ecr_client.describe_repositories()["repositories"]) == 3


def repository(**properties: Any) -> Program:
    """A repository of which a test says what it is like."""

    def declare() -> None:
        Repository("iris", opts=pulumi.ResourceOptions(provider=provider()), **{"name": NAME, **properties})

    return declare


def provider() -> Provider:
    return Provider("registry", region=REGION)


def test_one_that_exists_already_is_refused_as_aws_does(aws_stack: Stack, ecr_client: Any) -> None:
    ecr_client.create_repository(repositoryName=NAME)
    run = aws_stack.up()
    assert run.failed
    assert "creating ECR Repository (asgard-model/iris): operation error ECR: CreateRepository" in run.text()
    assert "StatusCode: 400" in run.text()
    assert f"RepositoryAlreadyExistsException: The repository with name '{NAME}' already exists" in run.text()
    assert "Repository" not in aws_stack.resources()


def test_one_that_exists_already_can_be_imported(aws_stack: Stack, ecr_client: Any) -> None:
    ecr_client.create_repository(repositoryName=NAME, imageScanningConfiguration={"scanOnPush": True})

    def declare() -> None:
        Repository(
            "iris",
            name=NAME,
            image_scanning_configuration={"scan_on_push": True},
            opts=pulumi.ResourceOptions(provider=provider(), import_=NAME),
        )

    assert aws_stack.up(declare).text() == ""
    assert aws_stack.resources()["Repository"]["outputs"]["repositoryUrl"].endswith(NAME)
    assert aws_stack.preview(declare).steps == []


def test_one_with_images_is_deleted_only_by_force(aws_stack: Stack, ecr_client: Any) -> None:
    aws_stack.up(repository())
    push(ecr_client, "one")
    run = aws_stack.destroy()
    assert "ECR Repository (asgard-model/iris) not empty, consider using force_delete" in run.text()
    assert "Repository" in aws_stack.resources()
    assert aws_stack.up(repository(force_delete=True)).steps == [("update", "Repository", {"forceDelete": "add"})]
    assert not aws_stack.destroy().failed
    assert ecr_client.describe_repositories()["repositories"] == []


def test_an_update_changes_what_differs_and_nothing_else(aws_stack: Stack, ecr_client: Any) -> None:
    aws_stack.up(repository(image_scanning_configuration={"scan_on_push": True}, tags={"a": "1", "b": "2"}))
    changed = repository(image_scanning_configuration={"scan_on_push": False}, tags={"a": "1", "b": "3"})
    expected = {"imageScanningConfiguration.scanOnPush": "update", "tags.b": "update", "tagsAll.b": "update"}
    assert aws_stack.preview(changed).steps == [("update", "Repository", expected)]
    aws_stack.up(changed)
    [found] = ecr_client.describe_repositories()["repositories"]
    assert found["imageScanningConfiguration"] == {"scanOnPush": False}
    tags = ecr_client.list_tags_for_resource(resourceArn=found["repositoryArn"])["tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"a": "1", "b": "3"}
    # Left out, a block stays as it is, as in the real provider; tags go.
    assert aws_stack.preview(repository()).steps == [
        ("update", "Repository", dict.fromkeys(["tags", "tagsAll.a", "tagsAll.b"], "delete"))
    ]


@pytest.mark.parametrize(
    ("properties", "path"),
    [
        ({"encryption_configurations": [{"encryption_type": "KMS"}]}, "encryptionConfigurations[0].encryptionType"),
        ({"name": "asgard-model/other"}, "name"),
        ({"region": "eu-west-3"}, "region"),
    ],
)
def test_what_cannot_be_changed_replaces_it_and_the_old_one_goes_first(
    aws_stack: Stack, properties: dict[str, Any], path: str
) -> None:
    aws_stack.up(repository())
    run = aws_stack.up(repository(**properties))
    assert not run.failed
    assert [op for op, _ in run.ops()] == ["delete-replaced", "replace", "create-replacement"]
    assert run.steps[1][2] == {path: "update-replace"}


def test_another_policy_replaces_the_former_one_and_is_there_afterwards(aws_stack: Stack, ecr_client: Any) -> None:
    def declare(count: int, spaced: bool = False) -> Program:
        rule = {
            "rulePriority": 1,
            "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": count},
            "action": {"type": "expire"},
        }

        def inner() -> None:
            opts = pulumi.ResourceOptions(provider=provider())
            made = Repository("iris", name=NAME, opts=opts)
            policy = json.dumps({"rules": [rule]}, indent=4 if spaced else None)
            LifecyclePolicy("iris", repository=made.name, policy=policy, opts=opts)

        return inner

    aws_stack.up(declare(10))
    assert aws_stack.preview(declare(10, spaced=True)).steps == []
    run = aws_stack.up(declare(11))
    assert [op for op, _ in run.ops()] == ["delete-replaced", "replace", "create-replacement"]
    kept = json.loads(ecr_client.get_lifecycle_policy(repositoryName=NAME)["lifecyclePolicyText"])
    assert kept["rules"][0]["selection"]["countNumber"] == 11


def test_the_address_may_be_that_of_another_registry(
    aws_stack: Stack, monkeypatch: pytest.MonkeyPatch, ecr_client: Any
) -> None:
    monkeypatch.setenv(REGISTRY, "127.0.0.1:5000")
    assert aws_stack.up().outputs == {"iris": f"127.0.0.1:5000/{NAME}"}
    assert aws_stack.preview().steps == []
    assert ecr_client.describe_repositories()["repositories"][0]["repositoryUri"].endswith(f"amazonaws.com/{NAME}")


def test_without_valid_credentials_nothing_is_done_and_it_is_said(
    aws_stack: Stack, monkeypatch: pytest.MonkeyPatch, aws: str, ecr_client: Any
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto_server.EXPIRED)
    assert "The security token included in the request is expired" in aws_stack.up().text()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "No valid credential sources found" in aws_stack.preview().text()
    assert ecr_client.describe_repositories()["repositories"] == []


def test_rights_that_are_missing_are_told(aws_stack: Stack, monkeypatch: pytest.MonkeyPatch, aws: str) -> None:
    for name, value in moto_server.user(aws, ["sts:GetCallerIdentity", "ecr:DescribeRepositories"]).items():
        monkeypatch.setenv(name, value)
    with moto_server.rights_checked(aws):
        assert "AccessDeniedException: User: arn:aws:iam::123456789012:user/somebody" in aws_stack.up().text()


def test_it_speaks_to_moto_and_to_nothing_else(aws_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert "speaks to a moto server only" in aws_stack.up().text()


def test_the_plain_command_finds_it_on_its_path(
    aws_stack: Stack, ecr_client: Any, pulumi_path: str, tmp_path: Path
) -> None:
    aws_stack.up()
    ecr_client.put_image_scanning_configuration(repositoryName=NAME, imageScanningConfiguration={"scanOnPush": False})
    (tmp_path / "bin").mkdir()
    on_path(tmp_path / "bin")
    environment = {**os.environ, **aws_stack.environment, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{pulumi_path}"}

    def pulumi_says(*args: str) -> str:
        done = subprocess.run(
            ["pulumi", "--non-interactive", *args, "--stack", "iris"],
            cwd=aws_stack.folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "1 updated" in pulumi_says("refresh", "--yes")
    assert aws_stack.preview().steps == [("update", "Repository", {"imageScanningConfiguration.scanOnPush": "update"})]
    assert "deleted" in pulumi_says("destroy", "--yes")
    assert ecr_client.describe_repositories()["repositories"] == []


def lifecycle(aws_stack: Stack) -> str:
    aws_stack.up()
    policy: str = aws_stack.resources()["LifecyclePolicy"]["inputs"]["policy"]
    return policy


def test_the_image_that_serves_never_expires_and_ten_others_are_kept(aws_stack: Stack) -> None:
    """By ECR's rules of evaluation, whatever model serves and however old what serves is."""
    policy = lifecycle(aws_stack)
    for model in ("iris", naming.SERVING_TAG):
        for serving in (0, 1, 20, 29):
            images = [
                Image((f"{model}-v{number}-123456", *([naming.SERVING_TAG] if number == serving else [])), number)
                for number in range(30)
            ]
            kept = set(images) - expired(policy, images)
            assert {image.pushed for image in kept} == {*range(20, 30), serving}


def test_the_state_holds_the_policy_as_the_program_spells_it(aws_stack: Stack) -> None:
    """Else a refresh would show it as changed, depending on the engine's version."""
    assert lifecycle(aws_stack) == aws_stack.resources()["LifecyclePolicy"]["outputs"]["policy"]
