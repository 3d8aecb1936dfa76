"""The parent of a model's workers, driven through `control` as a deploy drives it."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgard.serving import control, options, server_log
from asgard.serving.desired import ApplyFailed, to_json
from asgard.serving.processes import alive, tree

from ..ports import free_port
from ..waiting import until
from .parents import Model, Parents


@contextmanager
def under_load(model: Model, kept: int, fresh: int, body: str) -> Iterator[dict[str, Any]]:
    """Clients that ask all the while; what they counted is in the dict afterwards."""
    command = [sys.executable, str(Path(__file__).with_name("load.py")), str(model.port), str(kept), str(fresh), body]
    found: dict[str, Any] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield found
        finally:
            found.update(json.loads(process.communicate(timeout=120)[0]))


def answering_pids(model: Model, count: int) -> set[int]:
    """The workers that answer, asked over `count` connections that are open at once."""
    with httpx.Client(limits=httpx.Limits(max_connections=None)) as client:
        streams = [client.stream("GET", f"{model.url}/health") for _ in range(count)]
        return {json.loads(stream.__enter__().read())["worker_pid"] for stream in streams}


def test_a_model_is_served_until_it_is_stopped(parents: Parents) -> None:
    model = parents.model()
    model.apply("specification")
    assert model.predict(1, 2, 3, 4, 5).json() == {"predictions": [1]}
    status = model.status()
    assert status.ready
    assert status.desired == model.desired("specification")
    assert json.loads((model.folder / "desired.json").read_text())["schema"] == 1
    model.stop()
    assert model.refuses()
    assert not any(alive(pid) for pid in (status.parent_pid, *status.worker_pids))
    assert control.status(model.folder) is None
    assert sorted(path.name for path in model.folder.iterdir()) == ["logs"]
    (model.folder / "desired.json").write_text("not JSON")
    model.stop()  # nothing there is no error
    assert not (model.folder / "desired.json").exists()


def test_twenty_updates_under_load_fail_no_request(parents: Parents, compiled: Callable[..., Path]) -> None:
    model = parents.model()

    def update(version: int) -> None:
        model.apply(version=version, bundle=str(compiled("specification", version)))
        assert model.version() == str(version)

    update(1)
    with under_load(model, kept=32, fresh=32, body='{"data": [[0, 1, 2, 3, 4]]}') as counted:
        for number in range(20):
            update(2 - number % 2)
            time.sleep(0.5)  # so that clients, which pause for as long, ask each version
    assert counted["failures"] == []
    assert counted["requests"] > 1000


def test_metrics_are_those_of_all_workers_also_of_one_that_has_died(parents: Parents) -> None:
    model = parents.model()
    model.apply("specification", replicas=2)
    before = model.status().worker_pids
    for _ in range(6):
        with httpx.Client() as client:
            client.post(f"{model.url}/predict", json={"data": [[1, 2, 3, 4, 5]]}).raise_for_status()
    os.kill(before[0], signal.SIGKILL)
    until(lambda: model.status().worker_pids != before and model.status().ready)
    found = {httpx.get(f"{model.url}/metrics").text for _ in range(10)}
    assert all('asgard_requests_total{path="/predict",status="200"} 6\n' in text for text in found)
    assert all("asgard_workers 2\n" in text for text in found)


def test_a_version_that_fails_leaves_the_former_one_untouched(parents: Parents) -> None:
    model = parents.model()
    model.apply("obedient", 1)
    before = model.status()
    with under_load(model, kept=16, fresh=16, body='{"data": [[0]]}') as counted:
        for name, reason, message in (
            ("broken", "Unhealthy", "cannot predict anything"),
            ("unloadable", "Crashed", "a file of the model is missing"),
            ("ends-at-load", "Crashed", "exit code 9"),
        ):
            with pytest.raises(ApplyFailed, match=message) as failed:
                model.apply(name, 2, replicas=2)
            assert failed.value.reason == reason
            assert model.status() == before
    assert counted["failures"] == []
    assert counted["requests"] > 100
    assert json.loads((model.folder / "desired.json").read_text())["release"]["version"] == 1


def test_a_first_version_that_fails_says_what_it_printed_and_leaves_nothing_that_runs(parents: Parents) -> None:
    model = parents.model()
    with pytest.raises(ApplyFailed) as failed:
        model.apply("unloadable")
    assert "about to fail" in failed.value.log_tail
    assert any(line.endswith("OSError: a file of the model is missing") for line in failed.value.log_tail)
    assert "about to fail" in model.logged
    until(lambda: control.status(model.folder) is None)
    assert model.refuses()
    assert not (model.folder / "desired.json").exists()


def test_a_version_that_is_not_healthy_in_time_is_given_up(parents: Parents) -> None:
    model = parents.model()
    with pytest.raises(ApplyFailed, match="within 3 seconds") as failed:
        model.apply("slow-to-load", timeout_seconds=3)
    assert failed.value.reason == "Timeout"


def test_a_version_that_needs_more_memory_than_it_may_have_is_oomkilled(parents: Parents) -> None:
    model = parents.model()
    with pytest.raises(ApplyFailed, match="32 MiB") as failed:
        model.apply("specification", memory_limit_bytes=32 * 1024**2)
    assert failed.value.reason == "OOMKilled"
    assert "OOMKilled" in model.log()


def test_a_worker_that_passes_its_memory_limit_while_it_serves_is_ended_and_comes_back(parents: Parents) -> None:
    model = parents.model()
    model.apply(memory_limit_bytes=512 * 1024**2)
    with pytest.raises(httpx.RemoteProtocolError):
        model.predict(2)
    assert model.predict(0).json() == {"predictions": [0]}
    assert "OOMKilled" in model.log()


def test_dead_workers_come_back_and_requests_wait_for_them(parents: Parents) -> None:
    model = parents.model()
    model.apply(replicas=2)
    for _ in range(3):
        before = set(model.status().worker_pids)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert model.predict(0).json() == {"predictions": [0]}  # waits in the socket that the parent holds
        until(lambda: model.status().ready and before.isdisjoint(model.status().worker_pids))  # noqa: B023


def test_a_worker_that_ends_itself_while_it_predicts_comes_back(parents: Parents) -> None:
    model = parents.model()
    model.apply()
    with pytest.raises(httpx.RemoteProtocolError):
        model.predict(3)
    assert model.predict(0).status_code == 200
    assert "ended with exit code 7" in model.log()


def test_workers_come_back_also_when_the_template_has_died_with_them(parents: Parents) -> None:
    model = parents.model()
    model.apply()
    (pid,) = model.status().worker_pids
    template = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert template != model.status().parent_pid
    for dead in (template, pid):
        os.kill(dead, signal.SIGKILL)
    assert model.predict(0).status_code == 200


def test_a_change_of_replicas_only_adds_or_removes_workers(parents: Parents) -> None:
    model = parents.model()
    model.apply()
    first = model.status().worker_pids
    model.apply(replicas=3)
    three = model.status().worker_pids
    assert three[:1] == first
    seen: set[int] = set()
    until(lambda: seen.issuperset(three) or seen.update(answering_pids(model, 12)))  # type: ignore[func-returns-value]
    assert len(seen) == 3
    model.apply(replicas=1)
    assert model.status().worker_pids == first
    until(lambda: not any(alive(pid) for pid in three[1:]))


def test_an_apply_of_what_runs_already_restarts_nothing(parents: Parents) -> None:
    model = parents.model()
    model.apply(environment={"TOKEN": "one"})
    before = model.status()
    model.apply(environment={"TOKEN": "one"})
    assert model.status() == before
    model.apply(environment={"TOKEN": "two"})
    assert model.predict(5).json()["predictions"][0] == "two"
    assert model.status().worker_pids != before.worker_pids


def test_a_port_that_another_process_has_is_named(parents: Parents) -> None:
    model = parents.model()
    with socket.create_server(("127.0.0.1", model.port)):
        with pytest.raises(ApplyFailed, match=str(model.port)) as failed:
            model.apply()
        assert failed.value.reason == "PortTaken"
    model.apply()
    assert model.predict(0).status_code == 200


def test_another_port_is_served_before_the_former_one_is_given_up(parents: Parents) -> None:
    model, other = parents.model(), parents.model("other")
    model.apply()
    with socket.create_server(("127.0.0.1", other.port)):
        with pytest.raises(ApplyFailed) as failed:
            model.apply(port=other.port)
        assert failed.value.reason == "PortTaken"
        assert model.predict(0).status_code == 200
    model.apply(port=other.port)
    assert other.predict(0).status_code == 200
    until(model.refuses)


def test_metrics_may_have_a_port_of_their_own_which_outlives_versions(parents: Parents) -> None:
    model, port = parents.model(), free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    asked = {options.METRICS_PORT: str(port)}
    model.apply(replicas=2, environment=asked)
    assert httpx.get(f"{model.url}/metrics").status_code == 404
    assert "asgard_workers 2\n" in httpx.get(url).text
    model.apply(version=2, environment=asked)
    until(lambda: 'version="2"' in httpx.get(url).text)
    model.apply(version=2)
    assert httpx.get(f"{model.url}/metrics").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_a_port_for_metrics_that_cannot_be_had_leaves_what_serves(parents: Parents) -> None:
    model = parents.model()
    model.apply()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port, told in ((taken.getsockname()[1], "taken by another process"), (model.port, "the model itself")):
            with pytest.raises(ApplyFailed, match=told) as failed:
                model.apply(version=2, environment={options.METRICS_PORT: str(port)})
            assert failed.value.reason == "PortTaken"
    with pytest.raises(ApplyFailed, match=options.ACCESS_LOG):
        model.apply(version=2, environment={options.ACCESS_LOG: "perhaps"})
    assert model.version() == "1"


def test_after_the_parent_was_killed_the_next_apply_serves_on_the_same_port(parents: Parents) -> None:
    model = parents.model()
    model.apply(replicas=2)
    before = model.status()
    os.kill(before.parent_pid, signal.SIGKILL)
    model.apply("obedient", 2)
    assert model.version() == "2"
    assert model.status().parent_pid != before.parent_pid
    until(lambda: not any(alive(pid) for pid in before.worker_pids))


def test_workers_whose_parent_was_killed_end_by_themselves(parents: Parents) -> None:
    model = parents.model()
    model.apply(replicas=2)
    status = model.status()
    os.kill(status.parent_pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in status.worker_pids))
    assert model.refuses()
    assert control.status(model.folder) is None


def test_a_parent_that_is_told_to_end_leaves_what_should_serve_on_record(parents: Parents) -> None:
    model = parents.model()
    model.apply()
    status = model.status()
    os.kill(status.parent_pid, signal.SIGTERM)
    until(lambda: not any(alive(pid) for pid in (status.parent_pid, *status.worker_pids)))
    assert model.refuses()
    assert (model.folder / "desired.json").exists()


def test_a_parent_whose_folder_vanishes_ends(parents: Parents) -> None:
    model = parents.model()
    model.apply()
    status = model.status()
    model.folder.rename(model.folder.with_name("elsewhere"))
    until(lambda: not any(alive(pid) for pid in (status.parent_pid, *status.worker_pids)))


def test_applies_at_the_same_time_start_one_parent(parents: Parents) -> None:
    model = parents.model()
    desired = model.desired()
    with ThreadPoolExecutor() as pool:
        applies = [
            pool.submit(control.apply, model.folder, desired, {}, timeout_seconds=120, on_log=model.logged.append)
            for _ in range(4)
        ]
    assert [future.result() for future in applies] == [None] * 4
    assert model.status().ready
    assert model.log().count("parent of iris started") == 1
    second = [sys.executable, "-I", "-m", "asgard.serving.parent", str(model.folder)]
    assert subprocess.run(second, timeout=60, check=False).returncode == 0
    assert model.predict(0).status_code == 200


def test_an_apply_whose_caller_dies_is_taken_back(parents: Parents) -> None:
    model = parents.model()
    model.apply()
    before = model.status()
    with control._request(
        model.folder,
        {
            "command": "apply",
            "desired": to_json(model.desired("slow-to-load", 2)),
            "environment": {},
            "timeout_seconds": 120,
        },
        60,
    ) as answers:
        assert next(answers) == {"accepted": True}
    until(lambda: "the apply was taken back" in model.log())
    assert model.status() == before
    model.apply("obedient", 2)
    assert model.version() == "2"


def test_a_cancelled_apply_says_so_and_what_ran_before_runs_on(parents: Parents) -> None:
    model = parents.model()
    model.apply()
    before = model.status()
    with ThreadPoolExecutor() as pool:
        applied = pool.submit(model.apply, "slow-to-load", 2)
        until(control.applying)
        control.cancel()
        with pytest.raises(ApplyFailed) as failed:
            applied.result(30)
    assert failed.value.reason == "Cancelled"
    assert not control.applying()
    assert model.status() == before


def test_what_is_being_answered_is_finished_when_the_version_changes_and_when_the_model_is_stopped(
    parents: Parents,
) -> None:
    model = parents.model()
    model.apply()
    changes: list[Callable[[], None]] = [lambda: model.apply(environment={"A": "b"}), model.stop]
    for change in changes:
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(model.predict(1)))  # noqa: B023 - joined below
        (pid,) = model.status().worker_pids
        asking.start()
        until(lambda: _connections(pid) > 0)  # noqa: B023
        change()
        asking.join()
        assert [answer.status_code for answer in answers] == [200]


def _connections(pid: int) -> int:
    """Established TCP connections on the port of the process's listening socket."""
    sockets = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if "socket:" in str(link.readlink())}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(row[3] == "01" and f"socket:[{row[9]}]" in sockets for row in rows)


def test_a_slow_prediction_does_not_hold_up_the_health_check(parents: Parents) -> None:
    model = parents.model()
    model.apply()
    asking = threading.Thread(target=lambda: model.predict(1))
    asking.start()
    until(lambda: _connections(model.status().worker_pids[0]) > 0)
    assert httpx.get(f"{model.url}/health", timeout=10).status_code == 200
    assert asking.is_alive()
    asking.join()


def test_secrets_reach_the_workers_and_nothing_else(parents: Parents, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PULUMI_CONFIG_PASSPHRASE", "ASGARD_API_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "hidden-from-models")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")
    model = parents.model()
    model.apply(environment={"TOKEN": "s3cr3t-value", "OMP_NUM_THREADS": "3"})
    os.kill(model.status().worker_pids[0], signal.SIGKILL)  # the one that comes back knows it too
    token, threads, *names = model.predict(5).json()["predictions"]
    assert (token, threads) == ("s3cr3t-value", "3")
    assert {"PATH", "HOME", "HTTPS_PROXY"} <= set(names)
    assert not [name for name in names if name.startswith(("PULUMI_", "ASGARD_", "AWS_", "GITHUB_"))]
    status = model.status()
    for pid in (status.parent_pid, *status.worker_pids):
        assert "s3cr3t-value" not in Path(f"/proc/{pid}/cmdline").read_text()
    parent = Path(f"/proc/{status.parent_pid}/environ").read_text()
    assert "hidden-from-models" not in parent
    assert "s3cr3t-value" not in parent
    written = [path for path in model.folder.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if b"s3cr3t-value" in path.read_bytes()]


def test_what_models_print_is_logged_with_time_and_process_in_files_that_rotate(parents: Parents) -> None:
    model = parents.model()
    model.apply()
    (pid,) = model.status().worker_pids
    assert model.predict(4).status_code == 200
    until(lambda: f"Z [{pid}] line 39999 " in model.log())
    files = {file.name: file.stat().st_size for file in (model.folder / "logs").iterdir()}
    assert sorted(files) == ["server.log", "server.log.1"]
    assert max(files.values()) <= server_log.MAX_BYTES


def test_more_clients_are_answered_than_files_may_be_open_where_the_platform_was_started(parents: Parents) -> None:
    model = parents.model()
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, former[1]))
    try:
        model.apply()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)
    with ExitStack() as opened:
        address = ("127.0.0.1", model.port)
        clients = [opened.enter_context(socket.create_connection(address, timeout=60)) for _ in range(200)]
        for client in clients:
            client.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert {client.recv(15) for client in clients} == {b"HTTP/1.1 200 OK"}


def test_a_model_in_a_folder_with_a_long_path_is_served(parents: Parents) -> None:
    model = parents.model("/".join(["a folder with a long name"] * 8))
    model.apply()
    assert model.predict(0).status_code == 200
    model.stop()
    assert model.refuses()


@pytest.fixture
def hanging(parents: Parents, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Model, set[int]]]:
    """A model whose parent does not answer, and the processes it consists of."""
    model = parents.model()
    model.apply(replicas=2)
    status = model.status()
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.5)
    os.kill(status.parent_pid, signal.SIGSTOP)
    pids = set(tree(status.parent_pid))
    assert pids > {status.parent_pid, *status.worker_pids}
    yield model, pids
    for pid in pids:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_model_whose_parent_hangs_is_stopped_all_the_same(hanging: tuple[Model, set[int]]) -> None:
    model, pids = hanging
    model.stop()
    assert not any(alive(pid) for pid in pids)
    assert model.refuses()
    assert not (model.folder / "desired.json").exists()


def test_an_apply_to_a_parent_that_hangs_starts_another(hanging: tuple[Model, set[int]]) -> None:
    model, pids = hanging
    model.apply("obedient", 2)
    assert model.version() == "2"
    assert not any(alive(pid) for pid in pids)
