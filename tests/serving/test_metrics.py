"""What the workers count, read as Prometheus reads it."""

import os
from collections.abc import Mapping

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from asgard.serving.metrics import BATCHES, Metrics, SharedNumbers

INFO = {
    "name": "iris",
    "version": "3",
    "run_id": 'a"b\\c\nd',
    "deployment_id": "iris-v3-abcdef",
    "flavor": "sklearn",
    "compiled": {"form": "onnxruntime"},
}


@pytest.fixture
def shared() -> SharedNumbers:
    return SharedNumbers()


def worker(shared: SharedNumbers) -> Metrics:
    row = shared.take()
    found = Metrics(shared, row, ["/predict", "/health"], INFO)
    shared.assign(row, os.getpid())
    return found


def families(metrics: Metrics) -> Mapping[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(metrics.text().decode())}


def samples(metrics: Metrics, family: str) -> dict[tuple[str, ...], float]:
    """Values by the sample's name and its labels' values."""
    return {(sample.name, *sample.labels.values()): sample.value for sample in families(metrics)[family].samples}


def count(metrics: Metrics, *requests: tuple[str, int]) -> None:
    for path, status in requests:
        metrics.ended(metrics.began(), path, status)


def test_requests_and_errors_of_all_workers_are_added_whichever_is_asked(shared: SharedNumbers) -> None:
    one, other = worker(shared), worker(shared)
    count(one, ("/predict", 200), ("/predict", 200), ("/predict", 422))
    count(other, ("/predict", 200), ("/health", 200), ("/predict", 500))
    for asked in (one, other):
        assert samples(asked, "asgard_requests") == {
            ("asgard_requests_total", "/predict", "200"): 3,
            ("asgard_requests_total", "/predict", "422"): 1,
            ("asgard_requests_total", "/predict", "500"): 1,
            ("asgard_requests_total", "/health", "200"): 1,
        }
        assert samples(asked, "asgard_request_errors") == {
            ("asgard_request_errors_total", "/predict", "422"): 1,
            ("asgard_request_errors_total", "/predict", "500"): 1,
        }


def test_clients_cannot_make_labels(shared: SharedNumbers) -> None:
    metrics = worker(shared)
    count(metrics, *((f"/{number}", 404) for number in range(100)), ("/predict", 299))
    assert samples(metrics, "asgard_requests") == {
        ("asgard_requests_total", "other", "404"): 100,
        ("asgard_requests_total", "/predict", "other"): 1,
    }


def test_latencies_are_counted_in_growing_buckets(shared: SharedNumbers, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = worker(shared)
    for seconds in (0.00005, 0.0003, 0.3, 20.0):
        monkeypatch.setattr("time.perf_counter", lambda: 0.0)
        began = metrics.began()
        monkeypatch.setattr("time.perf_counter", lambda seconds=seconds: seconds)
        metrics.ended(began, "/predict", 200)
    found = samples(metrics, "asgard_request_duration_seconds")
    bucket = "asgard_request_duration_seconds_bucket"
    assert [found[bucket, "/predict", le] for le in ("0.0001", "0.0005", "0.25", "0.5", "10", "+Inf")] == [
        1, 2, 2, 3, 3, 4
    ]  # fmt: skip
    assert found["asgard_request_duration_seconds_count", "/predict"] == 4
    assert found["asgard_request_duration_seconds_sum", "/predict"] == pytest.approx(20.30035)


def test_what_is_predicted_together_and_what_waits_is_seen(shared: SharedNumbers) -> None:
    metrics = worker(shared)
    for size in (1, 3, 3, 300):
        metrics.batch(size)
    metrics.queued(5)
    metrics.queued(-2)
    metrics.began()
    found = samples(metrics, "asgard_batch_requests")
    assert [found["asgard_batch_requests_bucket", f"{bound}"] for bound in (*BATCHES[:4], "+Inf")] == [1, 1, 3, 3, 4]
    assert found["asgard_batch_requests_sum",] == 307
    assert samples(metrics, "asgard_queue_depth") == {("asgard_queue_depth",): 3}
    assert samples(metrics, "asgard_requests_in_flight") == {("asgard_requests_in_flight",): 1}


def test_a_client_that_left_is_no_longer_in_flight(shared: SharedNumbers) -> None:
    metrics = worker(shared)
    metrics.began()
    metrics.gone()
    assert samples(metrics, "asgard_requests_in_flight") == {("asgard_requests_in_flight",): 0}


def test_what_a_dead_worker_counted_stays_and_what_it_did_does_not(shared: SharedNumbers) -> None:
    alive, dead_row = worker(shared), shared.take()
    dead = Metrics(shared, dead_row, ["/predict", "/health"], INFO)
    shared.assign(dead_row, 4_000_000)
    count(dead, ("/predict", 200))
    dead.began()
    dead.queued(7)
    shared.free(4_000_000)
    assert samples(alive, "asgard_requests") == {("asgard_requests_total", "/predict", "200"): 1}
    assert samples(alive, "asgard_requests_in_flight") == {("asgard_requests_in_flight",): 0}
    assert samples(alive, "asgard_queue_depth") == {("asgard_queue_depth",): 0}
    assert samples(alive, "asgard_workers") == {("asgard_workers",): 1}
    assert shared.take() == dead_row


def test_the_model_its_release_and_its_processes_are_told(shared: SharedNumbers) -> None:
    metrics = worker(shared)
    [info] = families(metrics)["asgard_model_info"].samples
    assert info.labels == {
        **{name: INFO[name] for name in ("name", "version", "run_id", "deployment_id", "flavor")},
        "form": "onnxruntime",
    }
    assert samples(metrics, "process_resident_memory_bytes")["process_resident_memory_bytes",] > 10 * 1024**2
    assert samples(metrics, "process_cpu_seconds")["process_cpu_seconds_total",] > 0
    assert samples(metrics, "process_open_fds")["process_open_fds",] > 3
    assert samples(metrics, "process_start_time_seconds")["process_start_time_seconds",] > 1.7e9
