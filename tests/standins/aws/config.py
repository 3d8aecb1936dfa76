"""Configuration of the provider resource: a region. Credentials are where every AWS program looks for them.

Checked as in https://github.com/pulumi/pulumi-aws/blob/master/provider/config.go.
"""

import os
from functools import lru_cache
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from .resource import Client
from .schema import Properties

_ENGINES_OWN: Final = frozenset({"version", "pluginDownloadURL", "__internal", "__defaults"})
_AS_THE_SDK_SETS_THEM: Final = {
    "skipCredentialsValidation": (False, "false"),
    "skipRegionValidation": (True, "true"),
}
"""Set by pulumi_aws itself; any other value is one that the stand-in does not know."""

_NO_CREDENTIALS: Final = (
    "No valid credential sources found.\nPlease see "
    "https://www.pulumi.com/registry/packages/aws/installation-configuration/ for more information about providing "
    "credentials."
)


def problems(properties: Properties, where: str) -> list[str]:
    """What is wrong with the configuration, or with the credentials that are found. `where`: the resource's name."""
    found = [
        f"could not validate provider configuration: Invalid or unknown key. Examine values at '{where}.{name}'."
        for name, value in properties.items()
        if name not in {"region", *_ENGINES_OWN} and value not in _AS_THE_SDK_SETS_THEM.get(name, ())
    ]
    return found or _credential_problems(region(properties))


def region(properties: Properties) -> str | None:
    return properties.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def client(name: str) -> Client:
    """For ECR in a region. AWS itself is never spoken to."""
    return _client("ecr", name)


def _client(service: str, name: str) -> Any:
    if not os.environ.get("AWS_ENDPOINT_URL"):
        raise AssertionError("The stand-in for the aws provider speaks to a moto server only: set AWS_ENDPOINT_URL.")
    return _made(service, name, frozenset(item for item in os.environ.items() if item[0].startswith("AWS_")))


@lru_cache(maxsize=8)
def _made(service: str, name: str, environment: frozenset[tuple[str, str]]) -> Any:
    """Making one takes a fifth of a second; another environment is another one."""
    retries: Any = {"total_max_attempts": 1}
    return boto3.Session().client(service, region_name=name, config=Config(retries=retries))


def _credential_problems(name: str | None) -> list[str]:
    if not name:
        return [
            "Missing region information\nMake sure you have set your AWS region, e.g. `pulumi config set aws:region`"
        ]
    try:
        _client("sts", name).get_caller_identity()
    except NoCredentialsError:
        return [_NO_CREDENTIALS]
    except ClientError as error:
        return [f"Invalid credentials configured.\nDetails: {error.response['Error']['Message']}"]
    except BotoCoreError as error:
        return [f"unable to validate AWS credentials.\nDetails: {error}"]
    return []
