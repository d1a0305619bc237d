"""Every object of every feature: what any cluster would say of it, and what a careful administrator would."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from kubernetes_validate import utils as published
from referencing import Registry, Resource

from chart import CHART, FEATURES, NAMESPACE, Object, Pod, Release, feature, helm, matches, refusal, with_values
from chart import settings as settings_of
from concord import settings
from concord.settings import load_settings
from loadtest.profiles import PROFILES

VERSIONS = [version for version in sorted({*published.all_versions()}) if 29 <= int(version.split(".")[1]) <= 36]
FOREIGN_KINDS = {"Certificate", "Issuer", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
"""Kinds of cert-manager and of the Prometheus operator, which have their own schemas."""

KNOWN_VARIABLES = {
    *(f"CONCORD_{name.upper()}" for name in settings._READERS),
    *settings.OTHER_VARIABLES,
    *("CONCORD_TLS_DIR", "CONCORD_EXCHANGE_PORT", "CONCORD_TOPOLOGY", "CONCORD_JOIN_TIMEOUT"),
}
READ_HERE = {f"CONCORD_{name.upper()}" for name in settings._READERS} - {"CONCORD_SECRET_FILE"}
FLEET_VARIABLES = {"CONCORD_HOST", "CONCORD_PORT", *settings.FLEET_VARIABLES}

every_feature = pytest.mark.parametrize("name", FEATURES)


def pods_of(name: str) -> list[Pod]:
    return list(feature(name).pods())


@every_feature
def test_lint_finds_nothing(name: str) -> None:
    answer = helm("lint", "--strict", str(CHART), "--values", str(CHART / "ci" / f"{name}-values.yaml"))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "[WARNING]" not in answer.stdout


def test_schemas_are_there_for_every_supported_version() -> None:
    assert VERSIONS[0].startswith("1.29")
    assert VERSIONS[-1].startswith("1.36")
    assert len(VERSIONS) == 8


@every_feature
@pytest.mark.parametrize("version", VERSIONS)
def test_objects_are_what_kubernetes_takes(name: str, version: str) -> None:
    for one in feature(name).objects:
        if one["kind"] not in FOREIGN_KINDS:
            assert faults(version, _alike(one)) == ""


def test_an_object_that_is_wrong_is_noticed() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": []}}
    assert "prots" in faults(VERSIONS[-1], json.dumps(wrong))


def _alike(one: Object) -> str:
    """The object with the names of sites and other words that cannot matter made equal, so that one check does."""
    text = json.dumps(one, sort_keys=True)
    return re.sub(r"\b(n[1-9]|[ab][12]|north|south|west)\b", "site", re.sub(r"\b[0-9a-f]{64}\b", "digest", text))


@functools.cache
def faults(version: str, text: str) -> str:
    """What is wrong with an object, by the strict schema of a version."""
    one = json.loads(text)
    try:
        _validator(version, one["apiVersion"], one["kind"]).validate(one)
    except jsonschema.ValidationError as error:
        return f"{one['kind']} {one['metadata']['name']}: {error.json_path}: {error.message}"
    return ""


@functools.cache
def _validator(version: str, api: str, kind: str) -> Any:
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    group, _, number = api.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], number)))
    schema = published.schema_contents(f"{folder}/{name}.json", version)
    registry = Resource.from_contents(schema) @ (_definitions(version) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def _definitions(version: str) -> Resource[Any]:
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    return Resource.from_contents(published.schema_contents(f"{folder}/_definitions.json", version))


@every_feature
def test_no_two_objects_share_a_name(name: str) -> None:
    named = Counter((one["kind"], one["metadata"]["name"]) for one in feature(name).objects)
    assert [key for key, count in named.items() if count > 1] == []


@every_feature
def test_names_fit_where_kubernetes_puts_them(name: str) -> None:
    for one in feature(name).objects:
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", one["metadata"]["name"])
        assert len(one["metadata"]["name"]) <= (52 if one["kind"] in ("StatefulSet", "Job", "CronJob") else 63)
        for value in one["metadata"]["labels"].values():
            assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", value)


@every_feature
def test_every_container_says_what_it_needs_and_may_use(name: str) -> None:
    for pod, container in containers(name):
        for side in ("requests", "limits"):
            given = container["resources"][side]
            assert {"cpu", "memory"} <= given.keys(), f"{pod.name}: {container['name']} {side}"
        assert number(container["resources"]["requests"]["memory"]) <= number(
            container["resources"]["limits"]["memory"]
        )


@every_feature
def test_every_pod_meets_the_restricted_standard(name: str) -> None:
    for pod in pods_of(name):
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 10000
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["fsGroupChangePolicy"] == "OnRootMismatch"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
        kinds = {kind for volume in pod.spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"}
    for pod, container in containers(name):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, pod.name
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "procMount"} & context.keys()
        assert "tmp" in {mount["name"] for mount in container["volumeMounts"]}


@every_feature
def test_only_who_asks_the_kubernetes_api_has_a_token(name: str) -> None:
    for pod in pods_of(name):
        asks = pod.component in ("fleet", "certificates", "renewal")
        assert pod.spec["automountServiceAccountToken"] is asks
        assert pod.spec["enableServiceLinks"] is False
        assert pod.spec["serviceAccountName"] in feature(name).names("ServiceAccount")


@every_feature
def test_every_process_is_probed_in_three_ways(name: str) -> None:
    for pod, container in containers(name):
        if pod.component in ("certificates", "renewal", "test", "loadtest"):
            continue
        asked = {}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            question = container[probe]
            if container["name"] == "redis":
                assert question["tcpSocket"]["port"] in pod.ports
            else:
                assert question["httpGet"]["port"] in pod.ports
                asked[probe] = question["httpGet"]["path"]
        if container["name"] != "redis":
            assert list(asked.values()) == ["/startupz", "/healthz", "/readyz"]
        times = {tuple(sorted((k, v) for k, v in container[p].items() if isinstance(v, int))) for p in asked}
        assert len(times) == len(asked), f"{pod.name} is asked everything at the same times"


@every_feature
def test_mounts_have_volumes_and_volumes_what_they_name(name: str) -> None:
    release = feature(name)
    prefix = "edge" if name == "pods" else "concord"
    made_elsewhere = {f"{prefix}-tls-{site}" for site in sites_of(release)} | external_secrets(name)
    for pod in release.pods():
        claims = {claim["metadata"]["name"] for claim in pod.owner["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in pod.spec["volumes"]}
        assert not claims & volumes
        mounted = [mount["name"] for container in pod.containers for mount in container["volumeMounts"]]
        assert set(mounted) == claims | volumes, pod.name
        for volume in pod.spec["volumes"]:
            if "configMap" in volume and volume["name"] != "pictures":
                assert volume["configMap"]["name"] in release.names("ConfigMap")
            if "secret" in volume:
                assert volume["secret"]["secretName"] in release.names("Secret") | made_elsewhere, pod.name
        for reference in secret_keys(pod):
            if reference["name"] in release.names("Secret"):
                assert reference["key"] in release.get("Secret", reference["name"])["data"]
            else:
                assert reference["name"] in made_elsewhere


def external_secrets(name: str) -> set[str]:
    """Secrets that the values of a feature name, as they are after `{site}` was filled in."""
    values = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text()) or {}
    keys = ("secret", "redis", "externalRedis", "adminToken")
    given = [values.get(key, {}).get("existingSecret", "") for key in keys]
    pattern = values.get("tls", {}).get("existingSecrets", {}).get("name", "")
    sites = sites_of(feature(name))
    return {*filter(None, given), *(pattern.replace("{site}", site) for site in sites if pattern)}


def sites_of(release: Release) -> set[str]:
    """Names of the release's sites, in lower case."""
    return {pod.site.lower() for pod in release.pods() if pod.site}


def secret_keys(pod: Pod) -> Iterator[Object]:
    for container in pod.containers:
        for variable in container.get("env", []):
            if "secretKeyRef" in variable.get("valueFrom", {}):
                yield variable["valueFrom"]["secretKeyRef"]


@every_feature
def test_variables_are_settings_that_the_processes_know(name: str) -> None:
    for pod, container in containers(name):
        given = [variable["name"] for variable in container.get("env", [])]
        assert len(given) == len(set(given)), f"{pod.name}: a variable is given twice"
        ours = {variable for variable in given if variable.startswith("CONCORD_")}
        assert ours <= (FLEET_VARIABLES if pod.component == "fleet" else KNOWN_VARIABLES)
        if pod.component != "fleet":
            values = {variable["name"]: variable.get("value", "") for variable in container.get("env", [])}
            # A file that is not here cannot be read; the other values must be such as the settings take.
            texts = {key: value for key, value in values.items() if key in READ_HERE and "$(" not in value and value}
            load_settings({}, texts)
        # What $(NAME) stands for must come before it.
        for place, variable in enumerate(container.get("env", [])):
            for used in re.findall(r"\$\((\w+)\)", variable.get("value", "")):
                assert used in given[:place]


def test_connections_are_bounded_as_the_site_says() -> None:
    values = {"siteDefaults.connections.most": 900, "sites.n2.connections.perAddress": 900}
    limits = {}
    for pod in with_values(**values).pods():
        if pod.site is not None:
            env = {entry["name"]: entry.get("value") for one in pod.containers for entry in one.get("env", [])}
            limits[pod.site] = (env["CONCORD_CONNECTIONS"], env["CONCORD_CONNECTIONS_PER_ADDRESS"])
    assert limits == {f"n{n}": ("900", "900" if n == 2 else "256") for n in range(1, 9)}


@every_feature
def test_services_lead_to_pods_and_to_ports_they_have(name: str) -> None:
    release = feature(name)
    for service in release.of("Service"):
        selector = service["spec"]["selector"]
        chosen = [pod for pod in release.pods() if matches({"matchLabels": selector}, pod.labels)]
        assert len(chosen) == 1, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in chosen[0].ports
    for stateful_set in release.of("StatefulSet"):
        assert stateful_set["spec"]["serviceName"] in release.names("Service")
        service = release.get("Service", stateful_set["spec"]["serviceName"])
        assert service["spec"]["clusterIP"] == "None"


@every_feature
def test_only_the_doors_look_like_sites_to_a_fleet(name: str) -> None:
    release = feature(name)
    doors = [one for one in release.of("Service") if "concord.dev/federation" in one["metadata"]["labels"]]
    assert len(doors) == len(sites_of(release))
    for door in doors:
        url = door["metadata"]["annotations"]["concord.dev/url"]
        (port,) = door["spec"]["ports"]
        assert url.endswith(f"//{door['metadata']['name']}.{NAMESPACE}.svc:{port['port']}")


@every_feature
def test_selectors_take_their_own_pods_and_say_nothing_of_versions(name: str) -> None:
    release = feature(name)
    for owner in (*release.of("StatefulSet"), *release.of("Deployment")):
        selector = owner["spec"]["selector"]
        chosen = [pod for pod in release.pods() if matches(selector, pod.labels)]
        assert [pod.name for pod in chosen] == [f"{owner['kind']} {owner['metadata']['name']}"]
        for text in (
            selector,
            owner["spec"]["template"]["metadata"]["labels"],
            owner["spec"].get("volumeClaimTemplates"),
        ):
            assert "0.1.0" not in json.dumps(text)
            assert "helm.sh/chart" not in json.dumps(text)


@every_feature
def test_budgets_never_stop_a_drain(name: str) -> None:
    release = feature(name)
    for budget in release.of("PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in budget["spec"]
        assert any(matches(budget["spec"]["selector"], pod.labels) for pod in release.pods())


def test_exchange_and_inference_have_budgets() -> None:
    for name, per_site in (("default", 1), ("split", 2)):
        release = feature(name)
        assert len(release.of("PodDisruptionBudget")) == per_site * len(sites_of(release))


@every_feature
def test_predictions_go_on_while_pods_are_replaced(name: str) -> None:
    for deployment in feature(name).of("Deployment"):
        if deployment["metadata"]["labels"]["app.kubernetes.io/component"] != "inference":
            continue
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        pod = deployment["spec"]["template"]["spec"]
        (drain,) = [entry["value"] for entry in pod["containers"][0]["env"] if entry["name"] == "CONCORD_DRAIN"]
        assert 0 < int(drain) < pod["terminationGracePeriodSeconds"]


def test_a_scaled_deployment_does_not_say_how_many_it_is() -> None:
    release = feature("split-autoscaling")
    for scaler in release.of("HorizontalPodAutoscaler"):
        target = release.get("Deployment", scaler["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"]
    assert len(release.of("HorizontalPodAutoscaler")) == 8


def test_eight_sites_fit_a_small_laptop() -> None:
    requested = sum(
        number(container["resources"]["requests"]["memory"])
        for pod, container in containers("default")
        if pod.component == "site"
    )
    assert requested < 3 * 2**30


def test_redis_is_there_before_its_site_and_ends_after_it() -> None:
    for pod in pods_of("default"):
        if pod.component == "site":
            (sidecar,) = pod.spec["initContainers"]
            assert sidecar["name"] == "redis"
            assert sidecar["restartPolicy"] == "Always"


def test_roles_are_no_wider_than_their_work() -> None:
    for name in ("default", "fleet"):
        for role in feature(name).of("Role"):
            for rule in role["rules"]:
                assert "*" not in json.dumps(rule)
                reads_all = set(rule["verbs"]) <= {"list", "watch"} and "secrets" not in rule["resources"]
                assert rule.get("resourceNames") or rule["verbs"] == ["create"] or reads_all
    assert not feature("default").of("ClusterRole")


def test_a_load_test_asks_the_site_that_it_was_told_to() -> None:
    release = feature("loadtest")
    (pod,) = (pod for pod in release.pods() if pod.component == "loadtest")
    (container,) = pod.containers
    words = container["command"]
    assert words[words.index("--target") + 1] == "http://concord-n2-inference.federation.svc:8080"
    assert release.get("Service", "concord-n2-inference")
    assert PROFILES[words[3]].seconds < pod.owner["spec"]["activeDeadlineSeconds"]
    assert "n9" in refusal(*settings_of(loadtest={"enabled": True, "site": "n9"}))


def test_the_chart_knows_the_profiles_that_there_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = schema["properties"]["loadtest"]["properties"]
    assert known["profile"]["enum"] == list(PROFILES)
    default = yaml.safe_load((CHART / "values.yaml").read_text())["loadtest"]["deadline"]
    assert max(profile.seconds for profile in PROFILES.values()) < default


@every_feature
def test_hooks_come_in_an_order_that_works(name: str) -> None:
    hooks = [one for one in feature(name).objects if "helm.sh/hook" in one["metadata"].get("annotations", {})]
    assert {"ServiceAccount", "Role", "RoleBinding", "Job"} <= {one["kind"] for one in hooks} or name not in (
        "default",
        "split",
    )
    weights = {one["kind"]: int(one["metadata"]["annotations"].get("helm.sh/hook-weight", "0")) for one in hooks}
    assert ("Job" in weights) is any(pod.component == "certificates" for pod in pods_of(name))
    if "Job" in weights:
        order = ["ServiceAccount", "Role", "RoleBinding", "Job"]
        assert [weights[kind] for kind in order] == sorted({weights[kind] for kind in order})
        assert weights.get("NetworkPolicy", -1) < weights["Job"]


def test_certificates_of_cert_manager_say_who_a_site_is() -> None:
    for name in ("cert-manager", "cert-manager-issuer"):
        release = feature(name)
        certificates = [one["spec"] for one in release.of("Certificate") if "isCA" not in one["spec"]]
        assert len(certificates) == 8
        for spec in certificates:
            site = spec["secretName"].removeprefix("concord-tls-")
            assert spec["uris"] == [f"spiffe://digits/site/{site}"]
            assert f"concord-{site}-exchange.{NAMESPACE}.svc" in spec["dnsNames"]
            assert {"server auth", "client auth"} <= set(spec["usages"])
            assert spec["privateKey"]["rotationPolicy"] == "Always"
    assert feature("cert-manager").names("Issuer") == {"concord-ca", "concord-ca-self-signed"}
    assert not feature("cert-manager-issuer").of("Issuer")
    issuers = [one["spec"]["issuerRef"] for one in feature("cert-manager-issuer").of("Certificate")]
    assert all(
        issuer == {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "consortium"} for issuer in issuers
    )


def test_the_job_for_certificates_names_every_site_with_its_hosts() -> None:
    (job,) = feature("default").of("Job")
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    named = [text for flag, text in itertools.pairwise(arguments) if flag == "--site"]
    assert [text.partition("=")[0] for text in named] == [f"n{number}" for number in range(1, 9)]
    assert all(f"-exchange.{NAMESPACE}.svc" in text for text in named)


def test_a_door_that_others_call_has_its_name_in_the_certificate_of_its_site() -> None:
    release = feature("peers")
    door = release.get("Service", "concord-n1-exchange")
    assert door["spec"]["type"] == "LoadBalancer"
    assert door["spec"]["externalTrafficPolicy"] == "Local"
    assert [port["name"] for port in door["spec"]["ports"]] == ["exchange"]


@every_feature
def test_proof_of_identity_is_always_asked_for_or_given_up_explicitly(name: str) -> None:
    for pod, container in containers(name):
        if container["name"] not in ("site", "exchange"):
            continue
        given = {variable["name"] for variable in container["env"]}
        assert given & {"CONCORD_TLS_DIR", "CONCORD_SECRET_FILE", "CONCORD_INSECURE"}, pod.name
        assert ("CONCORD_INSECURE" in given) is (name == "insecure")


def containers(name: str) -> Iterator[tuple[Pod, Object]]:
    for pod in pods_of(name):
        for container in pod.containers:
            yield pod, container


def number(quantity: str) -> int:
    """Bytes of a quantity of memory."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return int(quantity[:-2]) * units[quantity[-2:]]


def test_the_admin_token_is_for_those_who_serve() -> None:
    for pod in feature("models").pods():
        token = [reference for reference in secret_keys(pod) if reference["name"] == "operators"]
        assert token == ([{"name": "operators", "key": "token"}] if pod.component == "inference" else []), pod.name
    for pod in with_values(adminToken={"existingSecret": "operators"}).pods():
        if pod.component == "site":
            assert {"name": "operators", "key": "token"} in list(secret_keys(pod))
