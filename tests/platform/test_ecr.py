"""Credentials for ECR: boto3's own chain, against moto."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import boto3
import pytest

from asgard.errors import InfrastructureFailed
from asgard.platform import ecr

from ..standins.aws import moto_server
from ..standins.aws.fixtures import REGION
from ..standins.aws.registry import EcrRegistry, running

TOKEN = "ecr:GetAuthorizationToken"


@pytest.fixture
def registry(aws: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[EcrRegistry]:
    """ECR as far as tokens go; its clock is that of the credentials too."""
    with running("127.0.0.1:1", aws, REGION) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
        monkeypatch.setattr(ecr, "_now", found.now)
        ecr._known.clear()
        yield found
        ecr._known.clear()


def test_credentials_are_ecrs_user_and_a_token_that_lasts(registry: EcrRegistry) -> None:
    found = ecr.credentials(REGION)
    assert found.username == "AWS"
    assert registry.tokens == {found.password: pytest.approx(found.expires_at, abs=timedelta(seconds=1))}


def test_a_token_is_used_again_until_it_lasts_less_than_an_hour(registry: EcrRegistry) -> None:
    first = ecr.credentials(REGION)
    registry.advance(timedelta(hours=10, minutes=58))
    assert ecr.credentials(REGION) is first
    registry.advance(timedelta(minutes=4))
    second = ecr.credentials(REGION)
    assert second.password != first.password
    assert second.expires_at - registry.now() > timedelta(hours=11)
    assert len(registry.tokens) == 2


def test_threads_share_one_token_and_regions_do_not(registry: EcrRegistry) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(ecr.credentials, [REGION] * 32))
    assert len(found) == len(registry.tokens) == 1
    assert ecr.credentials("eu-west-3") not in found


def test_neither_the_token_nor_a_key_is_shown_or_logged(
    registry: EcrRegistry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-the-session")
    botocore = logging.getLogger("botocore")
    before = botocore.level
    try:
        with caplog.at_level(logging.DEBUG):
            found = ecr.credentials(REGION)
    finally:
        botocore.setLevel(before)
    shown = f"{caplog.text} {found!r}"
    assert found.password not in shown
    assert moto_server.ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in shown
    assert "token-of-the-session" not in shown


def test_a_role_that_a_profile_names_is_assumed(
    registry: EcrRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With rights checked: the user may only assume the role, and the role may only fetch the token."""
    use_profile(monkeypatch, tmp_path, make_role("somebody"), moto_server.user(registry.endpoint, ["sts:AssumeRole"]))
    with moto_server.rights_checked(registry.endpoint):
        assert ecr.credentials(REGION).password in registry.tokens
        monkeypatch.setenv("AWS_PROFILE", "user")
        ecr._known.clear()
        refused("Unauthorized", "do not allow ecr:GetAuthorizationToken", "Add it to a policy")


def use_profile(monkeypatch: pytest.MonkeyPatch, folder: Path, role: str, key: Mapping[str, str]) -> None:
    """Take the credentials from a profile whose role is to be assumed with the key of another."""
    (folder / "aws-config").write_text(
        f"[profile deploys]\nrole_arn = {role}\nsource_profile = user\n"
        f"[profile user]\naws_access_key_id = {key['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {key['AWS_SECRET_ACCESS_KEY']}\n"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_PROFILE", "deploys")


def make_role(trusted: str) -> str:
    iam = boto3.client("iam", region_name=REGION)
    trust = {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"AWS": f"arn:aws:iam::{moto_server.ACCOUNT}:user/{trusted}"},
    }
    made = iam.create_role(
        RoleName="deploys", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    )
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": [TOKEN], "Resource": "*"}]}
    iam.put_role_policy(RoleName="deploys", PolicyName="token", PolicyDocument=json.dumps(policy))
    arn: str = made["Role"]["Arn"]
    return arn


def refused(reason: str, *words: str) -> None:
    """It says what is wrong and what to do, and the next call asks anew."""
    with pytest.raises(InfrastructureFailed) as raised:
        ecr.credentials(REGION)
    assert raised.value.reason == reason
    for word in words:
        assert word in raised.value.message
    assert moto_server.ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in raised.value.message
    assert REGION not in ecr._known


def test_without_credentials_it_says_where_they_are_looked_for(
    registry: EcrRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused("Unauthorized", "no AWS credentials", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHALF")
    refused("Unauthorized", "cannot be used", "Partial credentials", "AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_PROFILE", "nobodys")
    refused("Unauthorized", "cannot be used", "nobodys")


def test_credentials_that_expired_are_told_from_wrong_ones(
    registry: EcrRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto_server.EXPIRED)
    refused("Unauthorized", "have expired", "aws sso login")
    with moto_server.rights_checked(registry.endpoint):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN")
        refused("Unauthorized", "does not know the credentials", "UnrecognizedClientException")


def test_credentials_that_may_not_are_told_the_action_that_is_missing(
    registry: EcrRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = moto_server.user(registry.endpoint, ["ecr:DescribeRepositories"])
    for name, value in key.items():
        monkeypatch.setenv(name, value)
    with moto_server.rights_checked(registry.endpoint):
        refused("Unauthorized", "do not allow ecr:GetAuthorizationToken", "user/somebody", "(resource `*`)")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        refused("Unauthorized", "does not know the credentials", "InvalidSignatureException")


def test_a_role_that_may_not_be_assumed_is_told_so(
    registry: EcrRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_profile(monkeypatch, tmp_path, make_role("somebody-else"), moto_server.user(registry.endpoint, [TOKEN]))
    with moto_server.rights_checked(registry.endpoint):
        refused("Unauthorized", "do not allow sts:AssumeRole", "trust policy")


def test_an_ecr_that_cannot_be_reached_is_told_from_one_that_refuses(
    registry: EcrRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    refused("RegistryUnavailable", f"ECR in {REGION} cannot be reached", "AWS_REGION")


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("123456789012.dkr.ecr.eu-north-1.amazonaws.com", "eu-north-1"),
        ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", "us-east-1"),
        ("123456789012.dkr-ecr.eu-north-1.on.aws", "eu-north-1"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("public.ecr.aws", None),
        ("123456789012.dkr.ecr.eu-north-1.amazonaws.com.evil.test", None),
        ("123456789012.dkr.ecr.eu-north-1.amazonaws.com:443", None),
        ("12.dkr.ecr.eu-north-1.amazonaws.com", None),
        ("registry.test", None),
        ("", None),
    ],
)
def test_a_host_of_ecr_is_known_by_its_name_and_tells_its_region(host: str, region: str | None) -> None:
    assert ecr.region_of(host) == region
    assert ecr.is_ecr_host(host) is (region is not None)


def test_nobody_without_ecr_imports_boto3() -> None:
    program = "import sys; from asgard.platform import ecr; ecr.is_ecr_host('x'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"boto3", "botocore"} & set(done.stdout.split())
