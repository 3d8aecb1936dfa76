"""What the program declares for a model on a cluster, and for what models share there."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pulumi
import pytest
from pulumi.runtime import MockResourceArgs

from asgard import naming
from asgard.stacks.provider import image
from asgard.stacks.spec import DeploymentConfig, KubernetesConfig, ModelSpec, PlatformSpec, Release

from . import mocks

DIGEST = "sha256:" + "0" * 64
SPEC = ModelSpec(
    name="iris",
    target="kubernetes",
    namespace="staging",
    deployment=DeploymentConfig(replicas=2, memory_limit="1Gi", cpu_limit="500m"),
    kubernetes=KubernetesConfig(registry="registry.test/acme", rollout_timeout_seconds=120),
    release=Release(version=3, run_id="1234e56aa", digest=DIGEST, bundle="mlflow-artifacts:/1/x"),
)
ECR = KubernetesConfig(registry="ecr", region="eu-north-1")
PLATFORM = PlatformSpec(namespace="staging", registry="ecr", region="eu-north-1", image="registry.test/python:3.12")

DEPLOYMENT = "kubernetes:apps/v1:Deployment"
SERVICE = "kubernetes:core/v1:Service"
SECRET = "kubernetes:core/v1:Secret"
POD_SPECS = {DEPLOYMENT: ("template",), "kubernetes:batch/v1:Job": ("template",)} | {
    "kubernetes:batch/v1:CronJob": ("jobTemplate", "spec", "template")
}


def outputs(args: MockResourceArgs) -> dict[str, Any]:
    if args.typ == SERVICE:
        return {"status": {"loadBalancer": {"ingress": [{"hostname": "lb.test"}]}}}
    if args.typ == image.TYPE:
        repository = args.inputs["repository"]
        return {"reference": f"{repository}@{DIGEST}", "image_uri": f"{repository}:{args.inputs['tag']}"}
    if args.typ == "aws:ecr/repository:Repository":
        return {"repositoryUrl": f"1.dkr.ecr.eu-north-1.amazonaws.com/{args.inputs['name']}"}
    if "metadata" in args.inputs and "name" not in args.inputs["metadata"]:
        return {"metadata": {**args.inputs["metadata"], "name": f"{args.name}-given"}}
    return {}


def declared(
    spec: ModelSpec = SPEC, environment: dict[str, Any] | None = None
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    config = {naming.MODEL_CONFIG: spec.model_dump(by_alias=True)}
    return mocks.run(spec.name, config, environment or {}, outputs)


def shared(spec: PlatformSpec = PLATFORM, credentials: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    config = {naming.PLATFORM_CONFIG: spec.model_dump(by_alias=True)}
    return mocks.run(naming.PLATFORM_STACK, config, credentials or {}, outputs)[0]


def pods(inputs: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for kind, path in POD_SPECS.items():
        if kind in inputs:
            found = inputs[kind]["spec"]
            for name in path:
                found = found[name]
            yield found["spec"]


def container(inputs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    [only] = next(pods(inputs))["containers"]
    return dict(only)


def test_the_answer_names_the_load_balancer_and_the_image_by_its_tag() -> None:
    _, exported = declared()
    assert exported["inference_url"] == "http://lb.test"
    assert exported["endpoints"]["predict"] == "http://lb.test/predict"
    assert exported["image_uri"] == "registry.test/acme/iris:iris-v3-1234e5"
    assert exported["namespace"] == "staging"


def test_every_object_carries_the_models_name_and_lives_in_its_namespace() -> None:
    inputs, _ = declared(environment={"KEY": "value"})
    objects = {kind: found["metadata"] for kind, found in inputs.items() if "metadata" in found}
    assert objects.keys() == {
        DEPLOYMENT, SERVICE, SECRET, "kubernetes:policy/v1:PodDisruptionBudget",
        "kubernetes:networking.k8s.io/v1:NetworkPolicy",
    }  # fmt: skip
    for metadata in objects.values():
        assert metadata["labels"][naming.NAME_LABEL] == "iris"
        assert metadata["namespace"] == "staging"


def test_where_the_kubeconfig_is_found_is_no_part_of_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/home/someone/one:/home/someone/other")
    monkeypatch.setenv("ASGARD_KUBE_CONTEXT", "production")
    provider = declared()[0]["pulumi:providers:kubernetes"]
    assert (provider["kubeconfig"], provider["context"]) == ("", "production")


def test_a_new_version_changes_the_image_and_the_pods_template_and_nothing_else() -> None:
    former, _ = declared()
    release = Release(version=4, run_id="feedbeef", digest="sha256:" + "1" * 64, bundle="mlflow-artifacts:/1/y")
    new, _ = declared(SPEC.model_copy(update={"release": release}))
    changed = {kind for kind in new if new[kind] != former[kind]}
    assert changed == {image.TYPE, DEPLOYMENT}
    one, other = copy.deepcopy(former[DEPLOYMENT]), copy.deepcopy(new[DEPLOYMENT])
    assert one["spec"].pop("template") != other["spec"].pop("template")
    assert one == other


def test_more_replicas_change_the_number_of_replicas_alone() -> None:
    former, _ = declared()
    deployment = SPEC.deployment.model_copy(update={"replicas": 3})
    new, _ = declared(SPEC.model_copy(update={"deployment": deployment}))
    assert {kind for kind in new if new[kind] != former[kind]} == {DEPLOYMENT}
    assert {key for key, value in new[DEPLOYMENT]["spec"].items() if former[DEPLOYMENT]["spec"][key] != value} == {
        "replicas"
    }


def test_pods_run_the_image_by_its_digest_and_say_whose_release_they_are_in_annotations() -> None:
    inputs, _ = declared()
    template = inputs[DEPLOYMENT]["spec"]["template"]
    assert container(inputs)["image"] == f"registry.test/acme/iris@{DIGEST}"
    assert template["metadata"]["annotations"] == {
        "asgard.dev/deployment-id": "iris-v3-1234e5",
        "asgard.dev/run-id": "1234e56aa",
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8080",
        "prometheus.io/path": "/metrics",
    }
    assert "1234e5" not in json.dumps(template["metadata"]["labels"])
    assert inputs[DEPLOYMENT]["metadata"]["annotations"] == {"pulumi.com/patchForce": "true"}


def test_metrics_that_have_a_port_of_their_own_are_scraped_there_and_not_reached_through_the_service() -> None:
    inputs, _ = declared(environment={"ASGARD_SERVER_METRICS_PORT": "9464"})
    assert {port["name"]: port["containerPort"] for port in container(inputs)["ports"]} == {
        "http": 8080,
        "metrics": 9464,
    }
    annotations = inputs[DEPLOYMENT]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "9464"
    (rule,) = inputs["kubernetes:networking.k8s.io/v1:NetworkPolicy"]["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["http", "metrics"]
    assert [port["targetPort"] for port in inputs[SERVICE]["spec"]["ports"]] == ["http"]


def test_limits_are_the_posted_ones_and_no_pod_goes_before_its_successor_is_ready() -> None:
    inputs, _ = declared()
    resources = container(inputs)["resources"]
    assert resources["limits"] == {"cpu": "500m", "memory": "1Gi"}
    assert resources["requests"] == {"cpu": "50m", "memory": "1Gi"}
    assert inputs[DEPLOYMENT]["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert inputs[DEPLOYMENT]["spec"]["progressDeadlineSeconds"] == 120


def test_a_pod_is_asked_for_its_health_and_drains_before_it_ends() -> None:
    inputs, _ = declared()
    found = container(inputs)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert found[probe]["httpGet"]["path"] == "/health"
    assert found["lifecycle"]["preStop"] == {"sleep": {"seconds": 5}}
    assert next(pods(inputs))["terminationGracePeriodSeconds"] == 60


def test_a_budget_for_disruptions_is_there_from_two_replicas_on() -> None:
    single = SPEC.model_copy(update={"deployment": SPEC.deployment.model_copy(update={"replicas": 1})})
    assert "kubernetes:policy/v1:PodDisruptionBudget" in declared()[0]
    assert "kubernetes:policy/v1:PodDisruptionBudget" not in declared(single)[0]


def test_the_service_is_a_load_balancer_on_port_80_that_is_waited_for_by_its_address() -> None:
    inputs, _ = declared()
    assert inputs[SERVICE]["spec"]["type"] == "LoadBalancer"
    assert [port["port"] for port in inputs[SERVICE]["spec"]["ports"]] == [80]
    waiting = inputs[SERVICE]["metadata"]["annotations"]["pulumi.com/waitFor"]
    assert waiting == "jsonpath={.status.loadBalancer.ingress}"


def test_environment_values_are_in_a_secret_that_the_pods_refer_to_and_nowhere_else() -> None:
    inputs, _ = declared(environment={"API_KEY": "s3cret", "WORKERS": 2})
    assert mocks.is_secret(inputs[SECRET]["stringData"])
    assert inputs[SECRET]["stringData"]["value"] == {"API_KEY": "s3cret", "WORKERS": "2"}
    assert container(inputs)["envFrom"] == [{"secretRef": {"name": "iris-given"}}]
    del inputs[SECRET]
    assert "s3cret" not in json.dumps(inputs)
    assert SECRET not in declared()[0]


BOTH = pytest.mark.parametrize(
    "inputs",
    [declared()[0], shared(credentials={"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"})],
    ids=["model", "platform"],
)


@BOTH
def test_every_container_says_what_it_needs_as_quotas_of_a_namespace_ask(inputs: dict[str, dict[str, Any]]) -> None:
    for pod in pods(inputs):
        for one in pod["containers"]:
            assert {kind: set(amounts) for kind, amounts in one["resources"].items()} == {
                "limits": {"cpu", "memory"}, "requests": {"cpu", "memory"},
            }  # fmt: skip


@BOTH
def test_no_workload_leaves_the_restricted_profile(inputs: dict[str, dict[str, Any]]) -> None:
    """The profile: https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    found = list(pods(inputs))
    assert found
    for pod in found:
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"].get("runAsUser") != 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(volume.keys() & {"emptyDir", "configMap", "secret"} for volume in pod["volumes"])
        for one in pod["containers"]:
            context = one["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["runAsNonRoot"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert not context.keys() & {"privileged", "runAsUser"}
            assert all("hostPort" not in port for port in one.get("ports", ()))
    model_pods = [pod for pod in found if "serviceAccountName" not in pod]
    assert all(pod["automountServiceAccountToken"] is False for pod in model_pods)


@pytest.mark.parametrize("status", [{}, {"loadBalancer": {}}, {"loadBalancer": {"ingress": []}}])
def test_a_load_balancer_that_has_lost_its_address_is_told_in_words(status: dict[str, Any]) -> None:
    def without_address(args: MockResourceArgs) -> dict[str, Any]:
        return {"status": status} if args.typ == SERVICE else outputs(args)

    with pytest.raises(pulumi.RunError, match="has no address"):
        mocks.run(SPEC.name, {naming.MODEL_CONFIG: SPEC.model_dump(by_alias=True)}, {}, without_address)


def test_ingress_is_limited_to_the_models_port_and_egress_is_not() -> None:
    policy = declared()[0]["kubernetes:networking.k8s.io/v1:NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]


def test_an_ecr_repository_belongs_to_one_model_and_keeps_what_serves() -> None:
    inputs, exported = declared(SPEC.model_copy(update={"kubernetes": ECR}))
    repository = inputs["aws:ecr/repository:Repository"]
    assert repository["name"] == "asgard-model/iris"
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
    assert repository["imageTagMutability"] == "IMMUTABLE_WITH_EXCLUSION"
    assert repository["imageTagMutabilityExclusionFilters"] == [{"filter": "serving", "filterType": "WILDCARD"}]
    assert repository["encryptionConfigurations"] == [{"encryptionType": "AES256"}]
    assert repository["forceDelete"] is True
    first, second = json.loads(inputs["aws:ecr/lifecyclePolicy:LifecyclePolicy"]["policy"])["rules"]
    assert first["selection"]["tagPatternList"] == ["serving"]
    assert second["selection"] == {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 10}
    assert inputs["pulumi:providers:aws"]["region"] == "eu-north-1"
    assert exported["image_uri"] == "1.dkr.ecr.eu-north-1.amazonaws.com/asgard-model/iris:iris-v3-1234e5"


def test_any_other_registry_needs_nothing_of_aws() -> None:
    assert not [kind for kind in declared()[0] if "aws" in kind]


def test_the_platform_is_a_restricted_namespace() -> None:
    inputs = shared()
    assert {kind for kind in inputs if kind.startswith("kubernetes:")} == {"kubernetes:core/v1:Namespace"}
    metadata = inputs["kubernetes:core/v1:Namespace"]["metadata"]
    assert metadata["name"] == "staging"
    assert metadata["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_pull_credentials_for_ecr_are_renewed_in_the_cluster_and_secret() -> None:
    inputs = shared(credentials={"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "s3cret"})
    assert mocks.is_secret(inputs[SECRET]["stringData"])
    hours = inputs["kubernetes:batch/v1:CronJob"]["spec"]["schedule"].split()[1]
    assert hours == "*/4"
    del inputs[SECRET]
    assert "s3cret" not in json.dumps(inputs)


def test_pull_credentials_for_another_registry_are_a_secret() -> None:
    spec = PLATFORM.model_copy(update={"registry": "registry.test/acme", "region": None})
    inputs = shared(spec, {"USERNAME": "reader", "PASSWORD": "s3cret"})
    assert inputs[SECRET]["metadata"]["name"] == "asgard-registry"
    content = inputs[SECRET]["stringData"]
    config = content["value"] if mocks.is_secret(content) else content
    stored = config[".dockerconfigjson"]
    assert mocks.is_secret(content) or mocks.is_secret(stored)
    plain = stored["value"] if mocks.is_secret(stored) else stored
    assert json.loads(plain) == {"auths": {"registry.test": {"auth": "cmVhZGVyOnMzY3JldA=="}}}
    assert "kubernetes:batch/v1:CronJob" not in inputs
