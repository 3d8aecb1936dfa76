import os
import socket
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[2] / "tools" / "demo.py"


def demo(url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ASGARD_URL": url}
    return subprocess.run([sys.executable, DEMO], env=environment, capture_output=True, text=True, check=False)


def test_a_port_that_is_taken_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = demo(f"http://localhost:{port}")
    assert done.returncode == 1
    assert f"Port {port} is not free" in done.stderr
    assert "ASGARD_URL=http://localhost:" in done.stderr


def test_an_api_elsewhere_is_not_something_the_demo_can_start() -> None:
    done = demo("https://models.example.org")
    assert done.returncode == 1
    assert "ASGARD_URL must be http://localhost:<port>" in done.stderr
