"""All input and output with the API server: small verbs over plain objects."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.request import getproxies

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config.config_exception import ConfigException

from diffusion_operator import digests, naming
from diffusion_operator.api import API_VERSION, KIND
from diffusion_operator.api_clock import ApiClock
from diffusion_operator.errors import BadInputError, OperatorError, UnavailableError
from diffusion_operator.json_objects import JsonObject, as_objects
from diffusion_operator.matching import contains

log = logging.getLogger(__name__)

REQUEST_SECONDS = 30
RETRY_PAUSES_SECONDS = (0.1, 0.5)
PAGE_SIZE = 500
APPLY = "application/apply-patch+yaml"
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

IDENTITY = frozenset({"name", "namespace", "uid", "resourceVersion"})

NOT_FOUND, CONFLICT, UNPROCESSABLE, BAD_REQUEST, FORBIDDEN, TOO_MANY = 404, 409, 422, 400, 403, 429
SERVER_ERROR = 500

COLLECTIONS: Mapping[str, tuple[str, str]] = {
    KIND: (f"/apis/{API_VERSION}", "diffusionpipelines"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Pod": ("/api/v1", "pods"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "Service": ("/api/v1", "services"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "ScaledObject": ("/apis/keda.sh/v1alpha1", "scaledobjects"),
    "HTTPRoute": ("/apis/gateway.networking.k8s.io/v1", "httproutes"),
    "GRPCRoute": ("/apis/gateway.networking.k8s.io/v1", "grpcroutes"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "Event": ("/api/v1", "events"),
}

OPTIONAL: Mapping[str, str] = {
    "HTTPRoute": "The Gateway API (v1) is not installed in this cluster: install it, or leave traffic.gateway out.",
    "GRPCRoute": "The Gateway API (v1.1 or newer) is not installed in this cluster: there are no GRPCRoutes.",
    "ScaledObject": "KEDA is not installed in this cluster: install it, or choose provider: hpa.",
}
"""Kinds that a cluster need not know, and the message when one is applied there."""


class RejectedError(OperatorError):
    """The API server rejected the object: trying again with the same object changes nothing."""


class NameConflictError(OperatorError):
    """An object of this name exists and has another owner."""


class ConflictError(OperatorError):
    """The object changed since it was observed: observe it again."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Kind, namespace and name of one object; an empty namespace means all of them."""

    kind: str
    namespace: str
    name: str = ""

    def path(self, subresource: str = "") -> str:
        """URL path of the object, or of its collection when it has no name."""
        prefix, plural = COLLECTIONS[self.kind]
        place = f"{prefix}/namespaces/{self.namespace}" if self.namespace else prefix
        return "/".join(filter(None, (f"{place}/{plural}", self.name, subresource)))


def reference(body: Mapping[str, Any]) -> Reference:
    """Which object this is."""
    return Reference(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])


@asynccontextmanager
async def connect(kubeconfig: str | None = None) -> AsyncIterator["KubeClient"]:
    """A client for the cluster that this process runs in, else for the one that kubectl would use.

    Args:
        kubeconfig: file that says which cluster, instead of both.

    Raises:
        BadInputError: neither is configured.
    """
    configuration = client.Configuration()
    await _configure(configuration, kubeconfig)
    configuration.trace_configs = [_fence_trace()]
    # For the proxies that it names alone: otherwise every request looks for a ~/.netrc first, in a thread.
    configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
    async with client.ApiClient(configuration) as api:
        yield KubeClient(api)


async def _configure(configuration: client.Configuration, kubeconfig: str | None) -> None:
    if kubeconfig is None:
        with contextlib.suppress(ConfigException):
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return
    try:
        await config.load_kube_config(kubeconfig, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise BadInputError(f"No cluster is configured: {error}. Set KUBECONFIG.") from error


_MAY_WRITE: ContextVar[Callable[[], bool]] = ContextVar("may_write")
"""Of the request that this task is making."""


def _fence_trace() -> aiohttp.TraceConfig:
    """Ask again in the last moment before something is sent: a process may be paused between any two steps."""

    async def check(*_: object) -> None:
        if not _MAY_WRITE.get(lambda: True)():
            raise UnavailableError("Another process may lead by now, so nothing is written.")

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(check)
    trace.on_connection_reuseconn.append(check)
    return trace


class KubeClient:
    """The API server.

    Args:
        api: connection.
        may_write: asked before each write.
        clock: that its answers set; a new one by default.
    """

    def __init__(
        self, api: client.ApiClient, may_write: Callable[[], bool] = lambda: True, clock: ApiClock | None = None
    ) -> None:
        self._api = api
        self._may_write = may_write
        self.clock = clock or ApiClock()

    def fenced(self, may_write: Callable[[], bool]) -> "KubeClient":
        """The same connection, which writes only while this is true."""
        return KubeClient(self._api, may_write, self.clock)

    async def serves_pipelines(self) -> bool:
        """True when the API server knows our custom resource."""
        group = await self.request("GET", f"/apis/{API_VERSION}", missing_ok=True)
        return group is not None and any(resource["kind"] == KIND for resource in group.get("resources", []))

    async def get(self, ref: Reference) -> JsonObject | None:
        """The object, or None when there is none."""
        return await self.request("GET", ref.path(), missing_ok=True)

    async def select(self, ref: Reference, selector: str, fields: str = "") -> list[JsonObject]:
        """All objects of the kind and namespace with these labels, and these values of fields."""
        items: list[JsonObject] = []
        query = [("labelSelector", selector), ("fieldSelector", fields), ("limit", str(PAGE_SIZE))]
        while True:
            page = await self.request("GET", ref.path(), query=query, missing_ok=ref.kind in OPTIONAL) or {}
            items += page.get("items", [])
            token = page.get("metadata", {}).get("continue")
            if not token:
                return items
            query = [*query[:3], ("continue", token)]

    async def select_metadata(self, ref: Reference, selector: str) -> tuple[JsonObject, list[JsonObject]]:
        """Metadata of the list, and what identifies all objects of the kind and namespace with these labels."""
        items: list[JsonObject] = []
        query = [("labelSelector", selector), ("limit", str(PAGE_SIZE))]
        while True:
            page = await self.request("GET", ref.path(), content_type=METADATA, query=query) or {}
            # The list of metadata of nothing has null here, unlike that of whole objects.
            # A fleet has tens of thousands of objects, and most of their metadata is about managed fields.
            items += map(_identity, as_objects(page.get("items")))
            token = page.get("metadata", {}).get("continue")
            if not token:
                return page.get("metadata", {}), items
            query = [*query[:2], ("continue", token)]

    async def apply(self, body: JsonObject, observed: JsonObject | None, initial: JsonObject | None = None) -> bool:
        """Server-side apply, unless the observed object has all fields of the manifest already.

        Args:
            body: the manifest.
            observed: the live object as it was observed; None when it was not.
            initial: fields of the spec that only a new object gets, since others may change them later.

        Returns:
            True when something was written.

        Raises:
            NameConflictError: the object exists and another owner controls it.
            RejectedError: the API server does not accept the object.
        """
        ref = reference(body)
        if observed is None:
            observed = await self.get(ref)
            _check_owner(body, observed)
        if observed is not None and is_applied(body, observed):
            return False
        annotations = {**body["metadata"].get("annotations", {}), naming.APPLIED: manifest_digest(body)}
        head = {**body["metadata"], "annotations": annotations}
        if observed is None and initial is not None:
            # Not by apply: a field that is applied once and then left out would fall back to its default.
            return await self.create({**body, "metadata": head, "spec": body["spec"] | initial})
        query = [("fieldManager", naming.MANAGER), ("force", "true")]
        applied = await self.request(
            "PATCH",
            ref.path(),
            {**body, "metadata": head},
            APPLY,
            query=query,
            missing_ok=ref.kind in OPTIONAL,
        )
        if applied is None:
            raise RejectedError(OPTIONAL[ref.kind])
        return True

    async def create(self, body: JsonObject) -> bool:
        """Create the object; False when one of its name exists."""
        ref = reference(body)
        collection = Reference(ref.kind, ref.namespace)
        query = [("fieldManager", naming.MANAGER)]
        try:
            await self.request("POST", collection.path(), body, query=query)
        except ConflictError:
            return False
        return True

    async def patch(self, ref: Reference, body: JsonObject, content_type: str = STRATEGIC) -> JsonObject | None:
        """Patch the object; None when there is none."""
        query = [("fieldManager", naming.MANAGER)]
        return await self.request("PATCH", ref.path(), body, content_type, query=query, missing_ok=True)

    async def write_status(self, ref: Reference, status: JsonObject) -> None:
        """Replace the status by server-side apply; nothing happens when the object is gone."""
        body = {
            "apiVersion": API_VERSION,
            "kind": ref.kind,
            "metadata": {"name": ref.name, "namespace": ref.namespace},
            "status": status,
        }
        query = [("fieldManager", naming.MANAGER), ("force", "true")]
        await self.request("PATCH", ref.path("status"), body, APPLY, query=query, missing_ok=True)

    async def delete(self, ref: Reference, uid: str, resource_version: str | None = None) -> None:
        """Delete the object as it was observed; nothing happens when it is gone.

        Raises:
            ConflictError: it is another one by now, or changed when a resource version was given.
        """
        preconditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        body = {"propagationPolicy": "Background", "preconditions": preconditions}
        await self.request("DELETE", ref.path(), body, missing_ok=True)

    async def request(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        content_type: str = "application/json",
        *,
        query: list[tuple[str, str]] | None = None,
        missing_ok: bool = False,
    ) -> JsonObject | None:
        """Everything that is sent goes through here; None for what is missing, where that is no error.

        Args:
            method: of HTTP.
            path: of the URL.
            body: that is sent.
            content_type: of the body; of the answer to a GET.
            query: parameters.
            missing_ok: whether HTTP 404 is no error.

        Raises:
            ConflictError: the object has changed, or exists already.
            RejectedError: the API server does not accept the request.
            UnavailableError: the API server cannot be reached now.
        """
        may_write = self._may_write if method != "GET" else lambda: True
        if not may_write():
            raise UnavailableError(f"{method} {path}: another process may lead by now, so nothing is written.")
        _MAY_WRITE.set(may_write)
        headers = {"Accept": content_type if method == "GET" else "application/json", "Content-Type": content_type}
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=query or [],
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            status, data = await self._answer(request)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"The API server does not answer: {error or type(error).__name__}.") from error
        except ApiException as error:
            raise _error(method, path, int(error.status or 0), error.body) from error
        if status == NOT_FOUND and missing_ok:
            return None
        if status >= BAD_REQUEST:
            raise _error(method, path, status, data)
        parsed: JsonObject = json.loads(data)
        return parsed

    async def _answer(self, request: Any) -> tuple[int, bytes]:  # noqa: ANN401 - of the client library
        """Status and body; sent again when the connection ends before them, since repeating any request is safe."""
        for pause in RETRY_PAUSES_SECONDS:
            with contextlib.suppress(aiohttp.ServerDisconnectedError):
                return await self._send(request)
            await asyncio.sleep(pause)
        return await self._send(request)

    async def _send(self, request: Any) -> tuple[int, bytes]:  # noqa: ANN401 - of the client library
        response = await self._api.call_api(*request, _request_timeout=REQUEST_SECONDS)  # type: ignore[misc] # the library splits a request like this itself
        self.clock.note(response.getheader("Date"))  # type: ignore[no-untyped-call]
        return int(response.status), await response.read()  # type: ignore[no-untyped-call]


def _identity(item: JsonObject) -> JsonObject:
    return {"metadata": {key: value for key, value in item["metadata"].items() if key in IDENTITY}}


def _error(method: str, path: str, status: int, data: bytes | str | None) -> OperatorError:
    message = _message(data)
    text = f"{method} {path}: {message} (HTTP {status})."
    if status == CONFLICT:
        return ConflictError(text)
    if status in {UNPROCESSABLE, BAD_REQUEST, FORBIDDEN}:
        return RejectedError(text)
    if status == TOO_MANY or status >= SERVER_ERROR:
        return UnavailableError(text)
    return OperatorError(text)


def _message(data: bytes | str | None) -> str:
    try:
        return str(json.loads(data or "{}").get("message", "no message"))
    except (ValueError, AttributeError):
        return "no readable message"


def _check_owner(body: JsonObject, observed: JsonObject | None) -> None:
    if observed is None:
        return
    own_uids = {owner["uid"] for owner in body["metadata"].get("ownerReferences", [])}
    live_uids = {owner["uid"] for owner in observed["metadata"].get("ownerReferences", [])}
    if not own_uids & live_uids:
        ref = reference(body)
        if _names(body) & _names(observed):
            raise ConflictError(f"{ref.kind} {ref.name} of a deleted pipeline of this name is still going.")
        raise NameConflictError(
            f"{ref.kind} {ref.name} exists in namespace {ref.namespace} and is somebody else's: "
            "delete it, or give the pipeline or its target another name."
        )


def _names(body: JsonObject) -> set[tuple[str, str]]:
    return {(owner["kind"], owner["name"]) for owner in body["metadata"].get("ownerReferences", [])}


def is_applied(body: JsonObject, observed: JsonObject) -> bool:
    """True when we applied just this and nobody has changed it since; then nothing is written."""
    annotations = observed["metadata"].get("annotations", {})
    # Items of a list do not say what they are.
    fields = {key: value for key, value in body.items() if key not in {"apiVersion", "kind"}}
    return annotations.get(naming.APPLIED) == manifest_digest(body) and contains(observed, fields)


def manifest_digest(body: JsonObject) -> str:
    """Digest of a manifest, which the object that was applied carries."""
    return digests.json_digest(body)[: digests.KEY_LENGTH]
