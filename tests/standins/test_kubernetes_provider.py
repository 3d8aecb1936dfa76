"""Resources of the stand-in for the kubernetes provider, through the real engine, on the real cluster."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pulumi
import pytest
from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.models.autoscaling_v1 import ScaleSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment as LiveDeployment
from lightkube.resources.apps_v1 import DeploymentScale
from lightkube.resources.core_v1 import ConfigMap as LiveConfigMap
from lightkube.resources.core_v1 import Secret as LiveSecret
from lightkube.types import PatchType
from pulumi_kubernetes import Provider
from pulumi_kubernetes.apps.v1 import Deployment, StatefulSet
from pulumi_kubernetes.batch.v1 import CronJob
from pulumi_kubernetes.core.v1 import ConfigMap, Namespace, Secret, Service, ServiceAccount
from pulumi_kubernetes.networking.v1 import NetworkPolicy
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget
from pulumi_kubernetes.rbac.v1 import ClusterRole, ClusterRoleBinding, Role, RoleBinding

from ..cluster import Cluster, access
from .kubernetes import write_executable
from .kubernetes_stacks import Program, Stack, declare

SKIP_AWAIT = {"pulumi.com/skipAwait": "true"}


def config_map(name: str | None = "settings", **data: str) -> Program:
    metadata = {"name": name} if name else None

    def program() -> None:
        pulumi.export("name", declare(ConfigMap, "settings", metadata=metadata, data=data).metadata.name)

    return program


def deployment(
    replicas: int = 1, selector: str = "web", annotations: Mapping[str, str] = MappingProxyType({})
) -> Program:
    """One that nobody waits for, with values in a form that the API server writes differently."""

    def program() -> None:
        declare(
            Deployment,
            "web",
            metadata={"name": "web", "annotations": {**SKIP_AWAIT, **annotations}},
            spec={
                "replicas": replicas,
                "selector": {"match_labels": {"app": selector}},
                "template": {
                    "metadata": {"labels": {"app": selector}},
                    "spec": {
                        "host_network": False,
                        "node_selector": {},
                        "containers": [
                            {
                                "name": "web",
                                "image": "nowhere.invalid/none",
                                "env_from": [],
                                "env": [{"name": "EMPTY", "value": ""}],
                                "resources": {"limits": {"cpu": "1000m", "memory": "2048Mi"}},
                            }
                        ],
                    },
                },
            },
        )

    return program


def every_type(cluster_scoped: str) -> Program:
    """One of each that needs no waiting for; names that are unique in the cluster end in `cluster_scoped`."""
    subject = {"kind": "ServiceAccount", "name": "runner", "namespace": "default"}
    rule = {"api_groups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    pod = {"restart_policy": "Never", "containers": [{"name": "main", "image": "nowhere.invalid/none"}]}

    def program() -> None:
        declare(Namespace, "namespace", metadata={"name": f"made-{cluster_scoped}"})
        declare(ServiceAccount, "account", metadata={"name": "runner"}, automount_service_account_token=False)
        declare(Secret, "secret", string_data={"key": "value"}, immutable=True)
        declare(ConfigMap, "settings", data={"key": "value"})
        declare(
            Service,
            "internal",
            metadata={"annotations": SKIP_AWAIT},
            spec={"selector": {"app": "none"}, "ports": [{"port": 80, "target_port": "http"}]},
        )
        declare(
            CronJob,
            "renewal",
            spec={
                "schedule": "0 */6 * * *",
                "concurrency_policy": "Forbid",
                "job_template": {"spec": {"backoff_limit": 0, "template": {"spec": pod}}},
            },
        )
        declare(
            PodDisruptionBudget, "budget", spec={"max_unavailable": 1, "selector": {"match_labels": {"app": "none"}}}
        )
        declare(
            NetworkPolicy,
            "policy",
            spec={"pod_selector": {}, "policy_types": ["Ingress"], "ingress": [{"ports": [{"port": "http"}]}]},
        )
        declare(Role, "role", metadata={"name": "role"}, rules=[rule])
        declare(
            RoleBinding, "binding", role_ref={"api_group": RBAC, "kind": "Role", "name": "role"}, subjects=[subject]
        )
        role = f"role-{cluster_scoped}"
        declare(ClusterRole, "cluster-role", metadata={"name": role}, rules=[rule])
        declare(
            ClusterRoleBinding,
            "cluster-binding",
            metadata={"name": role},
            role_ref={"api_group": RBAC, "kind": "ClusterRole", "name": role},
            subjects=[subject],
        )

    return program


RBAC = "rbac.authorization.k8s.io"


def test_every_type_is_created_read_and_deleted_without_a_difference_in_between(stack: Stack, namespace: str) -> None:
    program = every_type(namespace)
    assert set(stack.preview(program).ops()) == {"create"}
    made = stack.up(program)
    assert not made.failed, made.text()
    assert len(made.steps) == 12
    assert stack.preview(program).steps == []
    assert not stack.refresh().failed
    assert stack.preview(program).steps == []
    assert not stack.destroy().failed


def test_one_more_replica_is_one_change_of_one_property(stack: Stack, client: Client) -> None:
    stack.up(deployment())
    assert stack.preview(deployment()).steps == []
    [step] = stack.preview(deployment(replicas=2)).steps
    assert (step.op, step.details) == ("update", {"spec.replicas": "update"})
    stack.up(deployment(replicas=2))
    live = client.get(LiveDeployment, "web")
    assert live.spec is not None
    assert live.spec.replicas == 2
    assert stack.preview(deployment(replicas=2)).steps == []


def test_what_is_no_longer_declared_goes_from_the_object(stack: Stack, client: Client) -> None:
    stack.up(deployment(annotations={"one": "1", "two": "2"}))
    [step] = stack.up(deployment(annotations={"one": "1"})).steps
    assert step.details == {"metadata.annotations.two": "delete"}
    metadata = client.get(LiveDeployment, "web").metadata
    assert metadata is not None
    assert metadata.annotations is not None
    assert metadata.annotations.keys() & {"one", "two"} == {"one"}


def test_what_cannot_be_changed_is_replaced_after_the_old_one_is_gone(stack: Stack) -> None:
    stack.up(deployment())
    steps = stack.up(deployment(selector="other")).steps
    assert {step.op for step in steps} == {"delete-replaced", "replace", "create-replacement"}
    assert steps[0].op == "delete-replaced"
    [details] = [step.details for step in steps if step.op == "replace"]
    assert details["spec.selector.matchLabels.app"] == "update-replace"
    assert details["spec.template.metadata.labels.app"] == "update"


def test_new_data_makes_a_new_secret_of_a_new_name_before_the_old_one_goes(stack: Stack, client: Client) -> None:
    def program(value: str) -> Program:
        def made() -> None:
            secret = declare(Secret, "credentials", string_data={"key": value}, immutable=True)
            pulumi.export("name", secret.metadata.name)
            pulumi.export("data", secret.data)

        return made

    stack.up(program("first"))
    first = stack.outputs()["name"]
    assert first.startswith("credentials-")
    assert stack.preview(program("first")).steps == []
    run = stack.up(program("second"))
    assert run.ops()[0] == "create-replacement"
    assert run.ops()[-1] == "delete-replaced"
    second = stack.outputs()["name"]
    assert second.startswith("credentials-")
    assert second != first
    assert [item.metadata and item.metadata.name for item in client.list(LiveSecret)] == [second]
    assert client.get(LiveSecret, second).data == {"key": "c2Vjb25k"}
    assert stack.secret_outputs() == {"data"}
    assert not [text for text in ("second", "c2Vjb25k") if text in stack.state_text()]


def test_a_secret_value_stays_one_wherever_it_is_put(stack: Stack) -> None:
    def program() -> None:
        declare(ConfigMap, "settings", metadata={"name": "settings"}, data={"key": pulumi.Output.secret("s3cret")})

    assert not stack.up(program).failed
    assert "s3cret" not in stack.state_text()
    assert not stack.refresh().failed
    assert "s3cret" not in stack.state_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"replicsa": 2}, 'unknown field "replicsa"'),
        ({"replicas": "two"}, "expected integer"),
        ({"selector": None}, 'missing required field "selector"'),
        ({"strategy": {"type": "recreate"}}, "is not one of Recreate, RollingUpdate"),
        ({"template": {"spec": {"containers": [{"name": "x", "resources": {"limits": {"cpu": "lots"}}}]}}}, "quantity"),
    ],
)
def test_what_the_api_servers_schema_does_not_know_is_refused(stack: Stack, change: dict[str, Any], said: str) -> None:
    spec = {"selector": {"match_labels": {"app": "web"}}, "template": {"spec": {"containers": [{"name": "web"}]}}}

    def program() -> None:
        declare(Deployment, "web", spec={**spec, **change})

    run = stack.preview(program)
    assert run.failed
    assert said in run.text()


def test_what_only_the_api_server_can_know_to_be_wrong_is_said_by_the_preview(stack: Stack) -> None:
    def program() -> None:
        declare(Service, "web", spec={"ports": [{"port": 123456}]})

    run = stack.preview(program)
    assert run.failed
    assert "must be between 1 and 65535" in run.text()


def test_a_type_that_the_stand_in_does_not_know_is_refused(stack: Stack) -> None:
    def program() -> None:
        declare(StatefulSet, "web", spec={"selector": {}, "service_name": "web", "template": {}})

    assert "no resource type kubernetes:apps/v1:StatefulSet" in stack.preview(program).text()


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"enable_server_side_apply": False}, "only does server-side apply"),
        ({"render_yaml_to_directory": "manifests"}, "does not do this"),
    ],
)
def test_what_the_stand_in_does_not_do_is_refused(stack: Stack, properties: dict[str, Any], said: str) -> None:
    def program() -> None:
        declare(Provider, "cluster", **properties)

    assert said in stack.preview(program).text()


def test_a_misspelt_property_of_the_provider_is_refused(stack: Stack) -> None:
    def program() -> None:
        class Misspelt(pulumi.ProviderResource):
            def __init__(self) -> None:
                super().__init__("kubernetes", "cluster", {"namespcae": "x"})

        Misspelt()

    assert "no such property" in stack.preview(program).text()


def test_an_explicit_provider_says_cluster_and_namespace(stack: Stack, cluster: Cluster, namespace: str) -> None:
    def program() -> None:
        elsewhere = declare(Namespace, "elsewhere", metadata={"name": f"{namespace}-elsewhere"})
        provider = declare(
            Provider,
            "cluster",
            kubeconfig=str(cluster.kubeconfig),
            context=cluster.context,
            namespace=elsewhere.metadata.name,
        )
        declare(ConfigMap, "settings", metadata={"name": "settings"}, opts=pulumi.ResourceOptions(provider=provider))

    assert not stack.preview(program).failed
    assert not stack.up(program).failed
    assert stack.state("settings")["id"] == f"{namespace}-elsewhere/settings"
    assert stack.preview(program).steps == []
    assert not stack.destroy().failed


def test_an_object_that_is_there_already_is_not_taken(stack: Stack, client: Client) -> None:
    client.create(LiveConfigMap(metadata=ObjectMeta(name="settings"), data={"theirs": "1"}))
    assert not stack.preview(config_map(ours="1")).failed
    run = stack.up(config_map(ours="1"))
    assert run.failed
    assert 'configmaps "settings" already exists' in run.text()
    assert client.get(LiveConfigMap, "settings").data == {"theirs": "1"}


def test_a_refresh_finds_what_was_changed_by_hand_and_the_next_up_undoes_it(stack: Stack, client: Client) -> None:
    stack.up(deployment())
    hands = {"spec": {"replicas": 3}}
    client.patch(LiveDeployment, "web", hands, patch_type=PatchType.STRATEGIC, field_manager="kubectl-edit")
    assert not stack.refresh().failed
    assert stack.state("web")["inputs"]["spec"]["replicas"] == 3
    [step] = stack.up(deployment()).steps
    assert step.details == {"spec.replicas": "update"}
    live = client.get(LiveDeployment, "web")
    assert live.spec is not None
    assert live.spec.replicas == 1


def test_a_refresh_forgets_what_is_gone(stack: Stack, client: Client) -> None:
    stack.up(deployment())
    client.delete(LiveDeployment, "web")
    assert not stack.refresh().failed
    assert stack.preview(deployment()).ops() == ["create"]


def test_a_field_that_another_manager_owns_is_a_conflict_unless_forced(stack: Stack, client: Client) -> None:
    stack.up(deployment())
    client.apply(
        DeploymentScale(metadata=ObjectMeta(name="web"), spec=ScaleSpec(replicas=3)),
        "web",
        field_manager="someone-else",
        force=True,
    )
    run = stack.up(deployment(replicas=2))
    assert run.failed
    assert 'conflict with "someone-else"' in run.text()
    assert stack.state("web")["initErrors"]
    insisting = deployment(annotations={"pulumi.com/patchForce": "true"})
    forced = stack.up(insisting)
    assert not forced.failed, forced.text()
    assert stack.preview(insisting).steps == []


def test_a_program_that_fails_on_an_object_keeps_the_others(stack: Stack, client: Client) -> None:
    def program() -> None:
        good = declare(ConfigMap, "good", metadata={"name": "good"})
        opts = pulumi.ResourceOptions(depends_on=[good], custom_timeouts=pulumi.CustomTimeouts(create="1s"))
        declare(ConfigMap, "bad", metadata={"name": "Not A Name"}, opts=opts)

    run = stack.up(program)
    assert run.failed
    assert "a lowercase RFC 1123 subdomain" in run.text()
    assert client.get(LiveConfigMap, "good")
    assert not stack.destroy().failed
    with pytest.raises(ApiError):
        client.get(LiveConfigMap, "good")


def test_no_cluster_is_told_by_what_would_change_it(stack: Stack, kubeconfig: Path) -> None:
    stack.up(config_map(key="1"))
    reachable = kubeconfig.read_text()
    kubeconfig.write_text(reachable.replace("https://127.0.0.1:", "https://127.0.0.1:1"))
    for run in (stack.up(config_map(key="2")), stack.refresh(), stack.destroy()):
        assert run.failed
        assert "unreachable" in run.text()
    kubeconfig.write_text(reachable)
    assert not stack.destroy().failed


def test_a_path_of_a_kubeconfig_that_was_recorded_must_go_on_to_lead_to_one(stack: Stack, kubeconfig: Path) -> None:
    """What the SDK records of $KUBECONFIG where a provider's kubeconfig is None, and not where it is empty."""

    def with_kubeconfig(value: str) -> Program:
        def declare_both() -> None:
            provider = Provider("cluster", kubeconfig=value)
            declare(ConfigMap, "settings", data={"key": "1"}, opts=pulumi.ResourceOptions(provider=provider))

        return declare_both

    moved = kubeconfig.with_name("moved")
    moved.write_text(kubeconfig.read_text())
    assert not stack.up(with_kubeconfig(str(moved))).failed
    moved.unlink()
    run = stack.preview(with_kubeconfig(""))
    assert run.failed
    assert "failed to parse kubeconfig" in run.text()


def test_a_user_that_may_only_read_sees_a_preview_and_no_more(
    stack: Stack, cluster: Cluster, kubeconfig: Path, namespace: str
) -> None:
    kubeconfig.write_text(access.for_user(cluster, "reader", namespace=namespace).read_text())
    assert not stack.preview(config_map(key="1")).failed
    run = stack.up(config_map(key="1"))
    assert run.failed
    assert 'User "reader" cannot create resource "configmaps"' in run.text()


def test_several_stacks_at_once_do_not_meet(make_stack: Callable[..., Stack]) -> None:
    def program(number: int) -> Program:
        return config_map(None, number=str(number))

    stacks = [make_stack() for _ in range(3)]
    with ThreadPoolExecutor() as threads:
        runs = list(threads.map(lambda number: stacks[number].up(program(number)), range(3)))
    assert [run.text() for run in runs if run.failed] == []
    assert len({stack.outputs()["name"] for stack in stacks}) == 3


PROGRAM = """
import pulumi
from pulumi_kubernetes.core.v1 import ConfigMap

settings = ConfigMap("settings", data={"key": pulumi.Config().require("value")})
pulumi.export("name", settings.metadata.name)
"""


def test_the_plain_cli_finds_it_as_an_executable_on_path(
    kubeconfig: Path, client: Client, pulumi_path: str, tmp_path: Path
) -> None:
    folder, bin_dir, backend = tmp_path / "a project", tmp_path / "bin", tmp_path / "backend"
    for path in (folder, bin_dir, backend):
        path.mkdir()
    (folder / "Pulumi.yaml").write_text("name: settings\nruntime: python\n")
    (folder / "__main__.py").write_text(PROGRAM)
    write_executable(bin_dir)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(bin_dir), pulumi_path]),
        "KUBECONFIG": str(kubeconfig),
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_BACKEND_URL": f"file://{backend}",
        "PULUMI_CONFIG_PASSPHRASE": "correct horse",
        "PULUMI_PYTHON_CMD": sys.executable,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }

    def run(*args: str) -> str:
        command = ["pulumi", "--non-interactive", *args]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run("stack", "init", "dev")
    run("config", "set", "value", "1")
    run("up", "--yes")
    name = json.loads(run("stack", "output", "--json"))["name"]
    assert client.get(LiveConfigMap, name).data == {"key": "1"}
    run("preview", "--expect-no-changes")
    run("destroy", "--yes")
    with pytest.raises(ApiError):
        client.get(LiveConfigMap, name)
