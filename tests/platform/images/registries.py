"""Real registries (Debian's docker-registry, the distribution project's) on the loopback, of several kinds."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import bcrypt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from ...ports import free_port


@contextmanager
def running(
    folder: Path,
    *,
    auth: Mapping[str, Any] | None = None,
    http: Mapping[str, Any] | None = None,
    delete: bool = True,
    port: int | None = None,
) -> Iterator[str]:
    """Yields `127.0.0.1:PORT` of a registry that ends with the block. `auth`, `http`: of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    config = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": delete}},
        "http": {"addr": f"127.0.0.1:{port}", **(http or {})},
        **({"auth": auth} if auth is not None else {}),
    }
    (folder / "config.json").write_text(json.dumps(config))
    log = folder / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["docker-registry", "serve", folder / "config.json"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 60
        while not _listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def basic(folder: Path, users: Mapping[str, str]) -> dict[str, Any]:
    """The part of a configuration that asks for Basic authentication."""
    path = folder / "htpasswd"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}" for name, word in users.items()]
    path.write_text("\n".join(lines))
    return {"htpasswd": {"realm": "tests", "path": str(path)}}


@dataclass(frozen=True)
class Certificate:
    """A key and its self-signed certificate for 127.0.0.1."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate
    key_file: Path
    file: Path


def certificate(folder: Path) -> Certificate:
    folder.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_file, file = folder / "key.pem", folder / "certificate.pem"
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return Certificate(key, made, key_file, file)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
