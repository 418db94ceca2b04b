"""The API server as the chaos areas use it: answers to documents, dry runs and plain paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusion_operator import naming
from diffusion_operator.errors import OperatorError, UnavailableError
from diffusion_operator.kube_client import APPLY, Reference, reference
from tests.support.operator.fleet import ControllerClient

if TYPE_CHECKING:
    from diffusion_operator.kube_client import KubeClient

JsonObject = dict[str, Any]
DRY = [("dryRun", "All")]
STRICT = [("fieldValidation", "Strict")]
SERVER_FIELDS = frozenset({"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"})


class ApiClient(ControllerClient):
    """More verbs."""

    @classmethod
    def over(cls, cluster: KubeClient) -> ApiClient:
        """The same connection."""
        return cls(cluster._api)  # noqa: SLF001 - of its own parent class

    async def admit(self, document: JsonObject, namespace: str) -> tuple[str, JsonObject]:
        """The objection to creating a pipeline (empty when there is none), and the object with its defaults."""
        target = Reference(document["kind"], namespace)
        try:
            stored = await self.request("POST", target.path(), document, query=[*DRY, *STRICT])
        except OperatorError as error:
            return str(error), {}
        return "", stored or {}

    async def objection(self, body: JsonObject, namespace: str) -> str:
        """The objection to applying an object, which is not stored; empty when there is none."""
        metadata = {key: value for key, value in body["metadata"].items() if key not in SERVER_FIELDS}
        plain = {key: value for key, value in body.items() if key != "status"}
        plain["metadata"] = {**metadata, "namespace": namespace}
        query = [("fieldManager", naming.MANAGER), ("force", "true"), *DRY, *STRICT]
        try:
            await self.request("PATCH", reference(plain).path(), plain, APPLY, query=query)
        except UnavailableError:
            raise  # No answer is no objection.
        except OperatorError as error:
            return str(error)
        return ""

    async def replace_spec(self, target: Reference, spec: JsonObject) -> str:
        """Replace a spec as `kubectl replace` does; the objection, or empty."""
        live = await self.get(target)
        body = {**(live or {}), "spec": spec}
        try:
            await self.request("PUT", target.path(), body, query=STRICT)
        except OperatorError as error:
            return str(error)
        return ""

    async def apply_as(self, manager: str, target: Reference, body: JsonObject) -> None:
        """Server-side apply by a field manager that is not the operator."""
        await self.request("PATCH", target.path(), body, APPLY, query=[("fieldManager", manager), ("force", "true")])

    async def remove(self, target: Reference) -> None:
        """Delete an object; nothing happens when there is none."""
        await self.request("DELETE", target.path(), {"propagationPolicy": "Background"}, missing_ok=True)

    async def remove_all(self, kind: str, namespace: str) -> None:
        """Delete every object of a kind in a namespace."""
        await self.request("DELETE", Reference(kind, namespace).path(), {})
