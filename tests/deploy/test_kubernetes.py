"""deploy/kubernetes: valid by Kubernetes' own schemas, whole, and what it names exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
from dockerfile import Dockerfile
from mitmproxy.options import Options
from places import PROJECT
from ruamel.yaml import YAML

from immich_triton.cli import main, triton
from immich_triton.ml.settings import OPTIONS, Settings
from immich_triton.server.triton_models import PIPELINES

FOLDER: Final = PROJECT / "deploy/kubernetes"
VERSIONS: Final = ("1.30.0", kubernetes_validate.latest_version())
NO_OBJECTS: Final = ("kustomization.yaml", "prometheus-adapter.yaml")
IMAGES: Final = {"immich-triton": "embedded", "immich-triton-gateway": "gateway", "immich-triton-exporter": "exporter"}
"""What an image is called, and its target in the Dockerfile."""

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    """Return the documents of a YAML file."""
    return [*YAML(typ="safe").load_all(path.read_text(encoding="utf-8"))]


FILES: Final = [path for path in sorted(FOLDER.rglob("*.yaml")) if path.name not in NO_OBJECTS]
EVERY: Final = [(path, one) for path in FILES for one in documents(path)]
OBJECTS: Final = [one for _, one in EVERY]
BUILT_IN: Final = [one for one in OBJECTS if "coreos" not in one["apiVersion"]]


def of(kind: str, name: str) -> Manifest:
    """Return the object of that kind and name."""
    (found,) = [one for one in OBJECTS if one["kind"] == kind and one["metadata"].get("name") == name]
    return found


def pods() -> list[Manifest]:
    """Return the pod templates of all workloads."""
    return [one["spec"]["template"] for one in OBJECTS if one["kind"] in ("Deployment", "Job")]


def containers() -> list[Manifest]:
    """Return the containers of all workloads."""
    return [container for pod in pods() for container in pod["spec"]["containers"]]


# Valid


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", BUILT_IN, ids=lambda one: f"{one['kind']}-{one['metadata'].get('name', 'models')}")
def test_what_kubernetes_knows_is_valid(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_finds_what_is_wrong() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**of("Service", "triton"), "no_such_key": 1}, VERSIONS[0], strict=True)


def test_what_cannot_be_validated_says_so() -> None:
    custom = {path for path, one in EVERY if one not in BUILT_IN} | {*FOLDER.glob("monitoring/*.yaml")}
    assert {path.parent.name for path in custom} == {"monitoring"}
    for path in custom:
        assert "NOT VALIDATED" in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("kustomization.yaml")), ids=lambda path: path.parent.name)
def test_a_kustomization_names_files_that_exist_and_leaves_none_out(file: Path) -> None:
    (kustomization,) = documents(file)
    beside = {path.name for path in file.parent.glob("*.yaml")} - {*NO_OBJECTS, "models-job.yaml"}
    assert {*kustomization["resources"]} == beside


def test_every_image_is_one_of_ours_and_is_given_a_place() -> None:
    (kustomization,) = documents(FOLDER / "kustomization.yaml")
    placed = {image["name"] for image in kustomization["images"]}
    used = {container["image"] for container in containers()}
    assert {image for image in used if "/" not in image} == placed
    targets = Dockerfile(PROJECT / "deploy/docker/Dockerfile").stages
    for image in used:
        name = image.rpartition("/")[2].partition(":")[0]
        assert IMAGES[name] in targets


# Careful


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: pod["metadata"]["labels"]["app.kubernetes.io/name"])
def test_pods_have_no_rights(pod: Manifest) -> None:
    own = pod["spec"]["securityContext"]
    assert (own["runAsNonRoot"], own["runAsUser"], own["seccompProfile"]["type"]) == (True, 1000, "RuntimeDefault")
    assert pod["spec"]["automountServiceAccountToken"] is False
    for container in pod["spec"]["containers"]:
        rights = container["securityContext"]
        assert (rights["allowPrivilegeEscalation"], rights["readOnlyRootFilesystem"]) == (False, True)
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        declared = {volume["name"] for volume in pod["spec"]["volumes"]}
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted.keys() == declared
        assert mounted["tmp"] == "/tmp"  # noqa: S108 - inside


def test_only_the_job_writes_models() -> None:
    read_only = {
        container["name"]: mount.get("readOnly", False)
        for container in containers()
        for mount in container["volumeMounts"]
        if mount["name"] == "models"
    }
    assert read_only == {"triton": True, "gateway": True, "export": False}


def test_gateways_share_the_ledger() -> None:
    (state,) = [
        volume
        for volume in of("Deployment", "gateway")["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "state"
    ]
    claim = of("PersistentVolumeClaim", state["persistentVolumeClaim"]["claimName"])
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_a_gateway_without_triton_is_still_found_and_a_triton_without_models_is_not() -> None:
    (gateway,) = of("Deployment", "gateway")["spec"]["template"]["spec"]["containers"]
    assert {gateway[f"{which}Probe"]["httpGet"]["path"] for which in ("readiness", "liveness", "startup")} == {
        "/healthz"
    }
    (server,) = of("Deployment", "triton")["spec"]["template"]["spec"]["containers"]
    path = server["readinessProbe"]["httpGet"]["path"]
    assert path in {f"/v2/models/{pipeline}/ready" for pipeline in PIPELINES}


def test_a_stop_leaves_time_to_be_forgotten_and_to_finish() -> None:
    pod = of("Deployment", "gateway")["spec"]["template"]["spec"]
    (seconds,) = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1:]
    assert pod["terminationGracePeriodSeconds"] >= int(seconds) + Settings().drain_timeout


# What it names exists


def test_selectors_find_the_pods_and_ports_have_their_names() -> None:
    labels = {pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods()}
    ports = {port["name"] for container in containers() for port in container.get("ports", [])}
    for one in OBJECTS:
        spec = one.get("spec", {})
        if one["kind"] == "Service":
            assert spec["selector"]["app.kubernetes.io/name"] in labels
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        elif "selector" in spec or "podSelector" in spec:
            selector = spec.get("selector") or spec["podSelector"]
            assert selector["matchLabels"]["app.kubernetes.io/name"] in labels
        if one["kind"] == "PodMonitor":
            assert {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]} <= ports
    scaled = of("HorizontalPodAutoscaler", "triton")["spec"]["scaleTargetRef"]
    assert of(scaled["kind"], scaled["name"])
    claims = {one["metadata"]["name"] for one in OBJECTS if one["kind"] == "PersistentVolumeClaim"}
    for pod in pods():
        for volume in pod["spec"]["volumes"]:
            assert volume.get("persistentVolumeClaim", {}).get("claimName", "models") in claims


def test_policies_open_the_ports_that_are_listened_on() -> None:
    listened = {
        name: {
            port["containerPort"]
            for port in of("Deployment", name)["spec"]["template"]["spec"]["containers"][0]["ports"]
        }
        for name in ("gateway", "triton")
    }
    assert listened == {"gateway": {3004, 9464}, "triton": {8000, 8002}}
    for name, ports in listened.items():
        policy = of("NetworkPolicy", name)["spec"]
        assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports


def test_the_gateway_is_started_with_options_that_exist() -> None:
    (gateway,) = of("Deployment", "gateway")["spec"]["template"]["spec"]["containers"]
    declared = {option.name: option for option in OPTIONS}
    for argument in gateway["args"]:
        option, _, value = argument.partition("=")
        if option == "--set":
            name, _, value = value.partition("=")
            own = declared[name].kind
            if not own.hidden:
                own.read(name, int(value) if own.type is int else value)
        elif option == "--scripts":
            assert (PROJECT / value).is_file()
        else:
            assert option.removeprefix("--").replace("-", "_") in {*Options().keys(), "mode"}
    assert any("immich_max_at_triton" in argument for argument in gateway["args"]), "there are several Tritons"


def test_triton_is_started_with_options_that_exist() -> None:
    (server,) = of("Deployment", "triton")["spec"]["template"]["spec"]["containers"]
    program, command = server["command"]
    assert (program, command in main.COMMANDS) == ("immich-triton", True)
    parsed = triton._parse(server["args"])
    (key,) = [mount["mountPath"] for mount in server["volumeMounts"] if mount["name"] == "key"]
    assert parsed.key == f"file:{key}/key"
    assert (parsed.http_port, parsed.metrics_port, str(parsed.models)) == (8000, 8002, "/models")


def test_the_autoscaler_asks_for_what_the_adapter_gives() -> None:
    (metric,) = of("HorizontalPodAutoscaler", "triton")["spec"]["metrics"]
    (adapter,) = documents(FOLDER / "monitoring/prometheus-adapter.yaml")
    (rule,) = adapter["rules"]["custom"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    dashboard = (PROJECT / "monitoring/grafana-dashboard.json").read_text(encoding="utf-8")
    for name in ("nv_inference_queue_duration_us", "nv_inference_request_success"):
        assert name in rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"].partition("{")[0])
        assert name in dashboard, "a metric that Triton has"
