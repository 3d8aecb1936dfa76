"""Credentials for ECR, found as every AWS program finds its own: environment, profile, assumed role, machine's role."""

import base64
import logging
import os
import re
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ..errors import InfrastructureFailed
from .images.auth import Credentials as RegistryCredentials

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

MARGIN: Final = timedelta(hours=1)
"""How long credentials that are given out last at least: longer than any push. ECR's own live twelve hours."""

_HOST: Final = re.compile(
    r"\d{12}\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn)"
)
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_UNKNOWN: Final = frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch",
     "AuthFailure", "IncompleteSignature", "MissingAuthenticationToken"}
)  # fmt: skip
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_HOW: Final = (
    "Give the API some as every AWS program takes them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a "
    "role (AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE, or the machine's own)."
)


@dataclass(frozen=True)
class Credentials(RegistryCredentials):
    """`expires_at`: with a time zone."""

    expires_at: datetime


def is_ecr_host(host: str) -> bool:
    """Whether images at this host are in a private registry of ECR, which takes nobody's lasting password."""
    return region_of(host) is not None


def region_of(host: str) -> str | None:
    """The region of a private registry of ECR, which its host's name says; None for any other registry."""
    found = _HOST.fullmatch(host)
    return None if found is None else found[1]


def endpoint() -> str | None:
    """URL of ECR's API where the environment names another than the region's public one, as for a VPC endpoint.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    return os.environ.get("AWS_ENDPOINT_URL_ECR") or os.environ.get("AWS_ENDPOINT_URL")


def credentials(region: str) -> Credentials:
    """For all registries in the region that the account may use; kept, and renewed an hour before they expire.

    Safe to call from several threads. Raises InfrastructureFailed, which says what to do.
    """
    with _lock:
        known = _known.get(region)
        if known is None or known.expires_at - _now() < MARGIN:
            known = _known[region] = _ask(region)
        return known


_lock: Final = threading.Lock()
_known: Final[dict[str, Credentials]] = {}


def _now() -> datetime:
    return datetime.now(UTC)


def _ask(region: str) -> Credentials:
    import boto3  # takes a while, and only those with ECR need it
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    log = logging.getLogger("botocore")
    log.setLevel(max(log.getEffectiveLevel(), logging.INFO))  # more detailed, it prints every answer: the token
    patience = Config(connect_timeout=10, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 4})
    try:
        client = boto3.Session().client("ecr", region_name=region, config=patience)
        given = client.get_authorization_token()["authorizationData"][0]
    except ClientError as error:
        # Not chained: an error about a signature quotes the request, and that may hold a session's token.
        raise _refused(error) from None
    except BotoCoreError as error:
        raise _not_asked(error, region) from None
    username, _, password = base64.b64decode(given["authorizationToken"]).decode().partition(":")
    return Credentials(username, password, given["expiresAt"])


def _refused(error: "ClientError") -> InfrastructureFailed:
    """For an answer of AWS other than the token. It may be about a role that was to be assumed first."""
    code = error.response.get("Error", {}).get("Code", "")
    assuming = error.operation_name.startswith("AssumeRole")
    action = f"{'sts' if assuming else 'ecr'}:{error.operation_name}"
    if code in _EXPIRED:
        text = (
            "The AWS credentials have expired. Renew them (`aws sso login`, or new keys in the API's environment or "
            "profile), see that the machine's clock is right, and try again."
        )
    elif code in _UNKNOWN:
        text = f"AWS does not know the credentials that the API has ({code}). {_HOW}"
    elif code in _DENIED:
        rest = ", and the user or role to the trust policy of the role to assume." if assuming else " (resource `*`)."
        said = error.response["Error"].get("Message", "")
        text = f"The AWS credentials do not allow {action} ({said}). Add it to a policy of the user or role{rest}"
    else:
        return InfrastructureFailed(f"AWS answers {action} with {code}. Try again later.", reason="RegistryUnavailable")
    return InfrastructureFailed(text, reason="Unauthorized")


def _not_asked(error: "BotoCoreError", region: str) -> InfrastructureFailed:
    """For a request that was not made, or has no answer."""
    from botocore import exceptions

    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return InfrastructureFailed(
            f"ECR in {region} cannot be reached ({type(error).__name__}). Check the region's name (AWS_REGION) and the "
            "way to the internet, and try again.",
            reason="RegistryUnavailable",
        )
    if isinstance(error, exceptions.NoCredentialsError):
        return InfrastructureFailed(f"There are no AWS credentials. {_HOW}", reason="Unauthorized")
    if isinstance(error, exceptions.SSOError | exceptions.TokenRetrievalError):
        return InfrastructureFailed(
            f"The AWS session has ended ({error}). Run `aws sso login` as the user who runs the API, and try again.",
            reason="Unauthorized",
        )
    return InfrastructureFailed(f"The AWS credentials cannot be used: {error} {_HOW}", reason="Unauthorized")
