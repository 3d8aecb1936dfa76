"""A moto server, in place of AWS, in a process of its own: `python -m tests.standins.aws.moto_server`.

moto tells who may not do something in XML whatever the service; a service that speaks JSON, as ECR does, gets it in
JSON here, as AWS gives it. A session that has expired, which moto has none of, is the access key `EXPIRED`.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import boto3
import httpx

ACCOUNT: Final = "123456789012"
"""In which everything is."""

ENVIRONMENT: Final = {
    "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Credentials that it takes. Beside them belong AWS_ENDPOINT_URL and a region."""

EXPIRED: Final = "ASIAEXPIREDEXPIREDEX"

_JSON_NAMES: Final = {
    "AccessDenied": "AccessDeniedException",
    "ExpiredToken": "ExpiredTokenException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
}
_ERROR: Final = re.compile(r"<Code>(\w+)</Code>\s*<Message>(.*?)</Message>", re.DOTALL)

Start = Callable[..., Any]


@contextmanager
def running() -> Iterator[str]:
    """Yields its address, as for AWS_ENDPOINT_URL. It ends with the block, and with this process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def user(address: str, actions: Sequence[str], name: str = "somebody") -> dict[str, str]:
    """Make an IAM user who may do these actions and nothing else; gives the access key, as environment variables."""
    iam = boto3.client(
        "iam",
        region_name="us-east-1",
        endpoint_url=address,
        aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
    )
    iam.create_user(UserName=name)
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


def reset(address: str) -> None:
    """Forget everything."""
    httpx.post(f"{address}/moto-api/reset", trust_env=False).raise_for_status()


@contextmanager
def rights_checked(address: str) -> Iterator[None]:
    """While this lasts, signatures must be right, and IAM policies say what may be done."""
    httpx.post(f"{address}/moto-api/reset-auth", content=b"0", trust_env=False).raise_for_status()
    try:
        yield
    finally:
        httpx.post(f"{address}/moto-api/reset-auth", content=b"inf", trust_env=False).raise_for_status()


def as_aws(moto: Callable[[dict[str, Any], Start], Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The WSGI application of moto with errors of authentication as AWS words them."""

    def application(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        answered: list[Any] = []
        if f"Credential={EXPIRED}/" in environ.get("HTTP_AUTHORIZATION", ""):
            answered = ["403 Forbidden", [("Content-Type", "text/xml")]]
            body = _xml("ExpiredToken", "The security token included in the request is expired")
        else:
            # Called back with the status before the first part of the body is there.
            body = b"".join(moto(environ, lambda *status: answered.extend(status)))
        error = _ERROR.search(body.decode()) if answered[0].startswith("403") else None
        if error and environ.get("CONTENT_TYPE", "").startswith("application/x-amz-json"):
            body = json.dumps({"__type": _JSON_NAMES[error[1]], "message": error[2]}).encode()
            answered = ["400 Bad Request", [("Content-Type", "application/x-amz-json-1.1")]]
        headers = [(name, value) for name, value in answered[1] if name.lower() != "content-length"]
        start(answered[0], [*headers, ("Content-Length", str(len(body)))])
        return [body]

    return application


def _xml(code: str, message: str) -> bytes:
    text = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    return f"{text}</ErrorResponse>".encode()


def _main() -> None:
    """Print the port, then serve until the standard input ends."""
    import logging
    import threading

    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = as_aws(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)  # noqa: T201 - for `running`
    sys.stdin.read()


if __name__ == "__main__":
    _main()
