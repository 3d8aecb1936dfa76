"""The script that renews the pull secret in the cluster: run as there, against moto and a small Kubernetes API."""

import base64
import json
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from asgard.platform.pythons import installed
from asgard.stacks import renewal

from ..cluster import certificates
from ..standins.aws import moto_server
from ..standins.aws.fixtures import REGION

CLAIMS = {"kubernetes.io": {"serviceaccount": {"name": "renewal", "uid": "8cfb380c-0e73"}}}
BEARER = f"header.{base64.urlsafe_b64encode(json.dumps(CLAIMS).encode()).decode().rstrip('=')}.signature"
SCRIPT = Path(renewal.__file__)
RUN = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("renewal", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.main(pathlib.Path(sys.argv[2]))
"""


@dataclass
class Kubernetes:
    """A Kubernetes API that only writes Secrets down. `refuses`: the Status that it answers instead."""

    environment: dict[str, str]
    account: Path
    authority: certificates.Pair
    written: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    refuses: tuple[int, dict[str, str]] | None = None


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Kubernetes]:
    authority = certificates.authority()
    own = certificates.server(authority, ["127.0.0.1"])
    (tmp_path / "server.pem").write_bytes(own.certificate + own.key)
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(BEARER)
    (account / "ca.crt").write_bytes(authority.certificate)

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.requests.append((self.path, self.headers["Content-Type"], self.headers["Authorization"]))
            status, answer = found.refuses or (200, content)
            if status == 200:
                found.written[content["metadata"]["name"]] = content
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    found = Kubernetes(
        {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.server_port)}, account, authority
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def user(aws: str) -> Iterator[dict[str, str]]:
    """What the pod knows of an IAM user who may do nothing but fetch a token. Rights are checked, and signatures."""
    key = moto_server.user(aws, ["ecr:GetAuthorizationToken"])
    with moto_server.rights_checked(aws):
        yield {**key, "AWS_ENDPOINT_URL_ECR": aws, "AWS_REGION": REGION}


def pythons() -> dict[str, Path]:
    """The oldest that is here of those that a model may run on, and the newest."""
    found = sorted(installed().items(), key=lambda known: int(known[0].partition(".")[2]))
    return dict([found[0], found[-1]])


def run(
    kubernetes: Kubernetes, environment: Mapping[str, str], python: Path = Path(sys.executable)
) -> subprocess.CompletedProcess[str]:
    """As in the pod: nothing in the environment but what the CronJob puts there, and no packages."""
    return subprocess.run(
        [str(python), "-S", "-I", "-c", RUN, str(SCRIPT), str(kubernetes.account)],
        env={"NAMESPACE": "staging", "PULL_SECRET": "asgard-registry", **kubernetes.environment, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_signature_is_botocores() -> None:
    host, body = "api.ecr.eu-north-1.amazonaws.com", b"{}"
    target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
    request = AWSRequest(
        "POST",
        f"https://{host}/",
        {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target, "Host": host},
        body,
    )
    SigV4Auth(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), "ecr", REGION).add_auth(request)
    now = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    own = renewal.signed_headers(host, REGION, body, "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", now)
    assert own["authorization"] == request.headers["Authorization"]
    assert own["x-amz-date"] == request.headers["X-Amz-Date"]


@pytest.mark.parametrize("python", pythons().values(), ids=pythons())
def test_the_secret_is_written_with_what_the_kubelet_needs(
    kubernetes: Kubernetes, user: dict[str, str], python: Path
) -> None:
    done = run(kubernetes, user, python)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert kubernetes.requests == [
        (
            "/api/v1/namespaces/staging/secrets/asgard-registry?fieldManager=asgard-renewal&force=true",
            "application/apply-patch+yaml",
            f"Bearer {BEARER}",
        )
    ]
    written = kubernetes.written["asgard-registry"]
    assert written["type"] == "kubernetes.io/dockerconfigjson"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "renewal", "uid": "8cfb380c-0e73"}
    assert written["metadata"] == {"name": "asgard-registry", "namespace": "staging", "ownerReferences": [account]}
    config = json.loads(base64.b64decode(written["data"][".dockerconfigjson"]))
    [(registry, entry)] = config["auths"].items()
    assert registry == f"{moto_server.ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
    assert base64.b64decode(entry["auth"]).decode() == f"AWS:{moto_server.ACCOUNT}-auth-token"


def test_it_is_a_program_that_needs_nothing_but_a_python() -> None:
    for python in pythons().values():
        done = subprocess.run(
            [str(python), "-S", "-I", str(SCRIPT)], env={}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr == "The pull secret was not renewed. The environment variable NAMESPACE is not set.\n"


def failed(done: subprocess.CompletedProcess[str], user: Mapping[str, str], *words: str) -> None:
    """It says why, and gives nothing away."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("The pull secret was not renewed. ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr
    for secret in (user["AWS_SECRET_ACCESS_KEY"], BEARER, "auth-token"):
        assert secret not in done.stderr


def test_a_key_that_may_not_fetch_tokens_is_told_so(kubernetes: Kubernetes, aws: str) -> None:
    key = moto_server.user(aws, ["ecr:DescribeRepositories"])
    with moto_server.rights_checked(aws):
        done = run(kubernetes, {**key, "AWS_ENDPOINT_URL_ECR": aws, "AWS_REGION": REGION})
    failed(done, key, "ECR answers 400", "AccessDenied", "ecr:GetAuthorizationToken")
    assert kubernetes.written == {}


def test_a_wrong_key_is_told_so(kubernetes: Kubernetes, user: dict[str, str]) -> None:
    failed(run(kubernetes, {**user, "AWS_SECRET_ACCESS_KEY": "another"}), user, "ECR answers 400", "Signature")
    failed(run(kubernetes, {**user, "AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}), user, "ECR answers 400", "UnrecognizedClient")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "PULL_SECRET"])
def test_a_variable_that_is_missing_is_named(kubernetes: Kubernetes, user: dict[str, str], name: str) -> None:
    failed(run(kubernetes, {**user, name: ""}), user, f"{name} is not set")


def test_an_account_that_may_not_write_secrets_is_told_so(kubernetes: Kubernetes, user: dict[str, str]) -> None:
    kubernetes.refuses = (
        403,
        {"kind": "Status", "reason": "Forbidden", "message": 'secrets "asgard-registry" is forbidden'},
    )
    failed(run(kubernetes, user), user, "The Kubernetes API answers 403: Forbidden:", "is forbidden")


def test_an_api_of_another_authority_gets_no_token(kubernetes: Kubernetes, user: dict[str, str]) -> None:
    (kubernetes.account / "ca.crt").write_bytes(certificates.authority().certificate)
    failed(run(kubernetes, user), user, "The Kubernetes API cannot be reached", "CERTIFICATE_VERIFY_FAILED")
    assert kubernetes.requests == []


def test_without_a_service_account_or_an_api_it_says_so(kubernetes: Kubernetes, user: dict[str, str]) -> None:
    failed(run(kubernetes, {**user, "AWS_ENDPOINT_URL_ECR": "http://127.0.0.1:1"}), user, "ECR cannot be reached")
    failed(run(kubernetes, {**user, "KUBERNETES_SERVICE_PORT": "1"}), user, "The Kubernetes API cannot be reached")
    (kubernetes.account / "token").write_text("no-token")
    failed(run(kubernetes, user), user, "token is not one of a service account")
    shutil.rmtree(kubernetes.account)
    failed(run(kubernetes, user), user, "no usable service account")
