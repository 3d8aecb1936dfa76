"""Renews the Secret with which pods pull from ECR, whose tokens live twelve hours.

Runs in the cluster, as the CronJob of the platform stack: a script of the standard library alone, on any image with a
Python. Environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, NAMESPACE, PULL_SECRET, and
AWS_ENDPOINT_URL_ECR where the API is elsewhere. Ends with 1 and a line that says why when it could not.
"""

import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the token of its service account, and the certificate of the Kubernetes API."""

_TARGET = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
_TYPE = "application/x-amz-json-1.1"
_SECONDS = 30


class NotRenewed(Exception):
    """Why; never with a secret."""


def signed_headers(
    host: str, region: str, body: bytes, key_id: str, key: str, now: datetime.datetime
) -> dict[str, str]:
    """Headers of a signed request to ECR.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html (signature version 4).
    """
    time, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {"content-type": _TYPE, "host": host, "x-amz-date": time, "x-amz-target": _TARGET}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{day}/{region}/ecr/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    secret = f"AWS4{key}".encode()
    for part in scope.split("/"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.digest(secret, text.encode(), "sha256").hex()
    credential = f"Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": f"AWS4-HMAC-SHA256 {credential}"}


def token(environment: Mapping[str, str]) -> tuple[str, str]:
    """The registry's host, and `user:password` in base64. Raises NotRenewed."""
    region = _of(environment, "AWS_REGION")
    url = environment.get("AWS_ENDPOINT_URL_ECR") or f"https://api.ecr.{region}.amazonaws.com"
    body = b"{}"
    headers = signed_headers(
        url.partition("://")[2].strip("/"), region, body, _of(environment, "AWS_ACCESS_KEY_ID"),
        _of(environment, "AWS_SECRET_ACCESS_KEY"), datetime.datetime.now(datetime.timezone.utc),  # noqa: UP017 - Python 3.10 has no other
    )  # fmt: skip
    answer = _ask("ECR", urllib.request.Request(f"{url}/", body, headers))
    try:
        given = json.loads(answer)["authorizationData"][0]
        # By its host, as image names have it, the kubelet finds what is meant for a registry.
        return given["proxyEndpoint"].partition("://")[2], given["authorizationToken"]
    except (ValueError, LookupError, TypeError):
        raise NotRenewed("ECR answers something else than a token.") from None


def owner(bearer: str) -> dict[str, str]:
    """Reference to the service account that the pod's token is of. Raises NotRenewed.

    Format: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-tokens.
    """
    try:
        claims = bearer.split(".")[1]
        account = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["kubernetes.io"]
        known = account["serviceaccount"]
        return {"apiVersion": "v1", "kind": "ServiceAccount", "name": known["name"], "uid": known["uid"]}
    except (ValueError, LookupError, TypeError):
        raise NotRenewed("The pod's token is not one of a service account.") from None


def secret(namespace: str, name: str, registry: str, auth: str, owner: Mapping[str, str]) -> dict[str, object]:
    """The Secret, which Kubernetes deletes when its owner goes.

    Format: https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/.
    """
    config = json.dumps({"auths": {registry: {"auth": auth}}})
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": [dict(owner)]},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(config.encode()).decode()},
    }


def apply(environment: Mapping[str, str], account: Path, bearer: str, manifest: dict[str, object]) -> None:
    """Write the Secret, there or not, with the rights of the pod's service account. Raises NotRenewed."""
    host, port = _of(environment, "KUBERNETES_SERVICE_HOST"), _of(environment, "KUBERNETES_SERVICE_PORT")
    address = f"[{host}]" if ":" in host else host
    path = f"api/v1/namespaces/{_of(environment, 'NAMESPACE')}/secrets/{_of(environment, 'PULL_SECRET')}"
    try:
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        # Python 3.13 is stricter than Kubernetes' own clients, and not every cluster's certificates please it.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    except OSError as error:
        raise _no_account(account, error) from None
    request = urllib.request.Request(
        f"https://{address}:{port}/{path}?fieldManager=asgard-renewal&force=true",
        json.dumps(manifest).encode(),
        {"authorization": f"Bearer {bearer}", "content-type": "application/apply-patch+yaml"},
        method="PATCH",
    )
    _ask("The Kubernetes API", request, context)


def main(account: Path = ACCOUNT) -> None:
    """Renew once. `account`: folder of the service account."""
    environment = os.environ
    try:
        namespace, name = _of(environment, "NAMESPACE"), _of(environment, "PULL_SECRET")
        bearer = _bearer(account)
        apply(environment, account, bearer, secret(namespace, name, *token(environment), owner(bearer)))
    except NotRenewed as error:
        sys.exit(f"The pull secret was not renewed. {error}")


def _bearer(account: Path) -> str:
    try:
        return (account / "token").read_text().strip()
    except OSError as error:
        raise _no_account(account, error) from None


def _no_account(account: Path, error: OSError) -> NotRenewed:
    return NotRenewed(f"The pod has no usable service account in {account}: {error.strerror or error}.")


def _of(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise NotRenewed(f"The environment variable {name} is not set.")
    return environment[name]


def _ask(whom: str, request: urllib.request.Request, context: "ssl.SSLContext | None" = None) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS, context=context) as response:
            answer: bytes = response.read()
            return answer
    except urllib.error.HTTPError as error:
        raise NotRenewed(f"{whom} answers {error.code}: {_said(error.read())}") from None
    except (OSError, http.client.HTTPException) as error:
        raise NotRenewed(f"{whom} cannot be reached: {getattr(error, 'reason', error)}.") from None


def _said(body: bytes) -> str:
    """The words of an error of AWS, or of Kubernetes."""
    try:
        document = json.loads(body)
        kind = document.get("__type") or document.get("reason") or ""
        return f"{kind.rpartition('#')[2]}: {document.get('message') or document.get('Message') or ''}"[:300]
    except (ValueError, AttributeError):
        return "no reason given"


if __name__ == "__main__":
    main()
