"""One namespace of a cluster through the official client: JSON objects in and out, errors as ClusterError.

Objects stay JSON, because the client's models are made for one version of Kubernetes and a cluster may be newer.
Requests are never repeated here: whoever calls knows whether that makes sense.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, cast

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException, OpenApiException
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError

from concord.errors import ClusterError, EnvironmentProblem

Object = dict[str, Any]

Call = Callable[..., object]
"""A method of the client; told not to read the answer itself, it gives an HTTPResponse."""

SERVICES, SLICES, PODS = "services", "endpointslices", "pods"
NOT_FOUND, CONFLICT, GONE = 404, 409, 410

_config: Any = config  # its functions have no types
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_LIST_TIMEOUT = 30.0


class Stream:
    """The events of a watch as they come; ends when the server ends it. `close` may be called from another thread."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        """Type and object; ClusterError with status 410 if the version asked for is too old, or if the line is cut."""
        with _translated("watch"):
            try:
                for line in _lines(self._response):
                    event = json.loads(line)
                    kind, one = str(event["type"]), event["object"]
                    if kind == "ERROR":
                        raise ClusterError(f"watch: {one.get('message', 'error')}", one.get("code"))
                    yield kind, one
            finally:
                self._response.close()

    def close(self) -> None:
        """Let go of whoever waits for the next event."""
        with suppress(ValueError, RuntimeError, OSError):
            self._response.shutdown()


def _lines(response: HTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(amt=None, decode_content=True):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from filter(None, whole)


class Cluster:
    """What this process may do in one namespace. `timeout` in seconds bounds connecting and every answer."""

    def __init__(self, api: client.ApiClient, namespace: str, timeout: float = 10.0) -> None:
        self.namespace = namespace
        self._api = api
        self._timeout = timeout
        core = client.CoreV1Api(api)
        self._core = core
        self._leases = client.CoordinationV1Api(api)
        self._events = client.EventsV1Api(api)
        self._lists: Mapping[str, Call] = {
            SERVICES: core.list_namespaced_service,
            PODS: core.list_namespaced_pod,
            SLICES: client.DiscoveryV1Api(api).list_namespaced_endpoint_slice,
        }

    @classmethod
    def connect(cls, namespace: str | None, environment: Mapping[str, str]) -> Self:
        """By KUBECONFIG if it is set, as the pod's service account, or by `~/.kube/config`.

        EnvironmentProblem if none of them is there, or no namespace is known.
        """
        settings = client.Configuration()
        kubeconfig = environment.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
        inside = "KUBERNETES_SERVICE_HOST" in environment and not environment.get("KUBECONFIG")
        try:
            if inside:
                _config.load_incluster_config(client_configuration=settings)
            elif environment.get("KUBECONFIG") or Path(kubeconfig).exists():
                _config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
            else:
                raise EnvironmentProblem(
                    "there is no Kubernetes cluster here: run this in a pod with a service account, or set KUBECONFIG"
                )
        except (config.ConfigException, OSError) as error:
            raise EnvironmentProblem(f"the cluster's configuration cannot be used: {error}") from error
        settings.retries = False  # urllib3 would try again at once
        return cls(client.ApiClient(settings), namespace or _own_namespace(inside, kubeconfig))

    def close(self) -> None:
        """Close idle connections."""
        cast(Any, self._api).close()

    # --- lists and watches -----------------------------------------------------------------------------------

    def list(self, kind: str, labels: str) -> tuple[list[Object], str]:
        """All objects of a kind, and the version that a watch goes on from."""
        answer = self._answer(
            f"list {kind}", self._lists[kind], self.namespace, label_selector=labels, _request_timeout=_LIST_TIMEOUT
        )
        return list(answer.get("items") or []), str(answer["metadata"]["resourceVersion"])

    def watch(self, kind: str, labels: str, version: str, seconds: int) -> Stream:
        """Events after `version`. The server ends it after `seconds`; soon after, a dead connection is noticed."""
        with _translated(f"watch {kind}"):
            response = self._lists[kind](
                self.namespace,
                label_selector=labels,
                resource_version=version,
                watch=True,
                allow_watch_bookmarks=True,
                timeout_seconds=seconds,
                _preload_content=False,
                _request_timeout=(self._timeout, seconds + self._timeout),
            )
            return Stream(cast(HTTPResponse, response))

    # --- single objects --------------------------------------------------------------------------------------

    def config_map(self, name: str) -> Object | None:
        """The ConfigMap, or None if there is none."""
        return self._found(f"get ConfigMap {name}", self._core.read_namespaced_config_map, name)

    def create_config_map(self, body: Object) -> Object:
        """ClusterError with status 409 if there is one already."""
        return self._answer("create a ConfigMap", self._core.create_namespaced_config_map, self.namespace, body)

    def replace_config_map(self, body: Object) -> Object:
        """ClusterError with status 409 if it changed since `body` was read."""
        name = body["metadata"]["name"]
        return self._answer(
            f"update ConfigMap {name}", self._core.replace_namespaced_config_map, name, self.namespace, body
        )

    def secret(self, name: str) -> Object | None:
        """The Secret, or None if there is none."""
        return self._found(f"get Secret {name}", self._core.read_namespaced_secret, name)

    def create_secret(self, body: Object) -> Object:
        """ClusterError with status 409 if there is one already."""
        name = body["metadata"]["name"]
        return self._answer(f"create Secret {name}", self._core.create_namespaced_secret, self.namespace, body)

    def replace_secret(self, body: Object) -> Object:
        """ClusterError with status 409 if it changed since `body` was read."""
        name = body["metadata"]["name"]
        return self._answer(f"update Secret {name}", self._core.replace_namespaced_secret, name, self.namespace, body)

    def lease(self, name: str) -> Object | None:
        """The Lease, or None if there is none."""
        return self._found(f"get Lease {name}", self._leases.read_namespaced_lease, name)

    def create_lease(self, body: Object) -> Object:
        """ClusterError with status 409 if there is one already."""
        return self._answer("create a Lease", self._leases.create_namespaced_lease, self.namespace, body)

    def replace_lease(self, body: Object, timeout: float | None = None) -> Object:
        """ClusterError with status 409 if it changed since `body` was read."""
        name = body["metadata"]["name"]
        return self._answer(
            f"update Lease {name}",
            self._leases.replace_namespaced_lease,
            name,
            self.namespace,
            body,
            _request_timeout=timeout or self._timeout,
        )

    def create_event(self, body: Object) -> None:
        """An Event (events.k8s.io/v1) for people."""
        self._answer("create an Event", self._events.create_namespaced_event, self.namespace, body)

    def _found(self, what: str, call: Call, name: str) -> Object | None:
        try:
            return self._answer(what, call, name, self.namespace)
        except ClusterError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def _answer(self, what: str, call: Call, *arguments: object, **options: object) -> Object:
        options = {"_request_timeout": self._timeout, **options, "_preload_content": False}
        with _translated(what):
            response = cast(HTTPResponse, call(*arguments, **options))
            answer: Object = json.loads(response.data)
            return answer


def _own_namespace(inside: bool, kubeconfig: str) -> str:
    if inside:
        try:
            return _NAMESPACE_FILE.read_text().strip()
        except OSError as error:
            raise EnvironmentProblem("the pod's namespace is not known; set --namespace") from error
    _, active = _config.list_kube_config_contexts(config_file=kubeconfig)
    return str((active.get("context") or {}).get("namespace") or "default")


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Foreign errors as ClusterError, in one line."""
    try:
        yield
    except ApiException as error:
        raise ClusterError(f"{what}: {error.status} {_message(error)}", error.status) from error
    except (OpenApiException, HTTPError, OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"{what}: {error or type(error).__name__}") from error


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, TypeError, KeyError):
        return str(error.reason)
