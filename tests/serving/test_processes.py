"""The environment of a model's processes, and what the system tells of them."""

import os
import subprocess
import sys

import pytest

from asgard.serving.processes import alive, clean_environment, resident_bytes, tree, worker_environment

from ..waiting import until


def test_only_what_a_process_needs_to_run_and_to_reach_the_network_is_inherited() -> None:
    passed = {"PATH": "/bin", "HOME": "/h", "LANG": "C", "TMPDIR": "/t", "https_proxy": "p", "NO_PROXY": "n"}
    passed |= {"SSL_CERT_FILE": "c"}
    refused = {"PULUMI_CONFIG": "x", "ASGARD_API_TOKEN": "x", "AWS_PROFILE": "x", "PYTHONPATH": "x", "LD_PRELOAD": "x"}
    assert clean_environment(passed | refused) == passed


@pytest.mark.parametrize(("millicores", "threads"), [(1, "1"), (250, "1"), (1000, "1"), (1001, "2"), (4000, "4")])
def test_numerical_libraries_get_as_many_threads_as_the_cpu_limit_has_cores(millicores: int, threads: str) -> None:
    environment = worker_environment({}, {"MKL_NUM_THREADS": "7"}, "/bundle", millicores)
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == threads
    assert environment["MKL_NUM_THREADS"] == "7"  # the user's word


def test_the_server_is_found_before_what_the_user_has_on_the_path() -> None:
    assert worker_environment({}, {}, "/bundle", 1000)["PYTHONPATH"] == "/bundle/server"
    assert worker_environment({}, {"PYTHONPATH": "/mine"}, "/bundle", 1000)["PYTHONPATH"] == "/bundle/server:/mine"


def test_memory_is_that_of_a_process_and_all_below_it() -> None:
    child = "x = bytearray(64 << 20); import time; time.sleep(600)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); import time; time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        until(lambda: resident_bytes(process.pid) > 64 << 20)
    finally:
        os.killpg(process.pid, 9)
        process.wait()
    assert resident_bytes(process.pid) == 0


def test_a_process_is_seen_with_all_its_children_also_where_they_fill_more_than_a_page() -> None:
    code = "import os, time\nfor _ in range(1500):\n    if not os.fork():\n        break\ntime.sleep(600)"
    process = subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
    try:
        until(lambda: len(list(tree(process.pid))) == 1501)
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_a_process_that_was_not_waited_for_is_not_alive() -> None:
    process = subprocess.Popen(["true"])
    until(lambda: not alive(process.pid))
    assert process.wait() == 0
    assert alive(os.getpid())
