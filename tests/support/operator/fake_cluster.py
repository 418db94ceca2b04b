"""An API server in memory, below the real client's verbs, and a person who plays the controllers."""

import hashlib
import itertools
import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from diffusion_operator import naming
from diffusion_operator.api import API_VERSION, KIND
from diffusion_operator.kube_client import APPLY, COLLECTIONS, METADATA, ConflictError, KubeClient, Reference
from diffusion_operator.views.base import rfc3339

JsonObject = dict[str, Any]
NAMESPACE = "studio"
REVISION = "0123456789abcdef0123456789abcdef01234567"


def _copy(item: JsonObject) -> JsonObject:
    """As over the wire: nothing but JSON, and nobody's objects are shared."""
    copied: JsonObject = json.loads(json.dumps(item))
    return copied


class FakeCluster(KubeClient):
    """Objects by (kind, name) in one namespace; counts what is written. Answers 404 for unknown kinds."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], JsonObject] = {}
        self.writes: list[str] = []
        self.unknown: set[str] = set()
        self.verbs: set[tuple[str, str]] = set()
        self._numbers = itertools.count(1)

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
        kind, name, subresource = parse_path(path)
        self._note(method, kind, name, subresource, content_type)
        if kind in self.unknown:
            assert missing_ok, f"{method} {path} answers 404"
            return None
        if method != "GET":
            self.writes.append(f"{method} {kind} {name or (body or {})['metadata']['name']}{subresource}")
        if method == "GET" and not name:
            parameters = dict(query or [])
            matching = [
                item for item in self._matching(kind, parameters["labelSelector"]) if has_fields(item, parameters)
            ]
            version = str(next(self._numbers)) if content_type == METADATA else ""
            return {"items": [_copy(item) for item in matching], "metadata": {"resourceVersion": version}}
        if method == "GET":
            stored_object = self.objects.get((kind, name))
            return None if stored_object is None else _copy(stored_object)
        if method == "DELETE":
            self._delete(kind, name, body or {})
            return None
        return self._write(method, kind, name + subresource, body or {}, content_type)

    def _note(self, method: str, kind: str, name: str, subresource: str, content_type: str) -> None:
        """What a role has to grant for this; an apply that creates needs both verbs."""
        verbs = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
        resource = COLLECTIONS[kind][1] + subresource
        self.verbs.add((resource, verbs[method]))
        if content_type == APPLY and (kind, name) not in self.objects:
            self.verbs.add((resource, "create"))

    def _write(self, method: str, kind: str, name: str, body: JsonObject, content_type: str) -> JsonObject | None:
        name, _, subresource = name.partition("/")
        body = _copy(body)
        if method == "POST":
            name = body["metadata"]["name"]
            if (kind, name) in self.objects:
                raise ConflictError(f"{kind} {name} exists")
        if subresource == "status":
            if (kind, name) in self.objects:
                self.objects[kind, name]["status"] = body["status"]
            return None
        if method == "PATCH" and content_type != APPLY:
            return self._merge(kind, name, body)
        if method == "PATCH" and (kind, name) in self.objects:
            _keep_what_was_not_applied(self.objects[kind, name], body)
        return self._replace(kind, name, body)

    def _replace(self, kind: str, name: str, body: JsonObject) -> JsonObject:
        before = self.objects.get((kind, name), {})
        head = before.get("metadata", {})
        changed = before.get("spec") != body.get("spec")
        body["metadata"] |= {
            "uid": head.get("uid", f"uid-{next(self._numbers)}"),
            "resourceVersion": str(next(self._numbers)),
            "generation": head.get("generation", 0) + (1 if changed else 0),
            "creationTimestamp": head.get("creationTimestamp", now()),
        }
        if "status" in before:
            body["status"] = before["status"]
        self.objects[kind, name] = body
        return body

    def _merge(self, kind: str, name: str, body: JsonObject) -> JsonObject | None:
        stored_object = self.objects.get((kind, name))
        if stored_object is None:
            return None
        head, patch_metadata = stored_object["metadata"], body.get("metadata", {})
        if patch_metadata.get("resourceVersion", head["resourceVersion"]) != head["resourceVersion"]:
            raise ConflictError(f"{kind} {name} changed")
        for field in ("labels", "annotations"):
            merged = {**head.get(field, {}), **patch_metadata.get(field, {})}
            head[field] = {key: value for key, value in merged.items() if value is not None}
        for owner in patch_metadata.get("ownerReferences", []):
            other_owners = [item for item in head.get("ownerReferences", []) if item["uid"] != owner["uid"]]
            head["ownerReferences"] = other_owners if "$patch" in owner else [*other_owners, owner]
        if "spec" in body:
            stored_object["spec"] |= body["spec"]
            head["generation"] += 1
        head["resourceVersion"] = str(next(self._numbers))
        return stored_object

    def _delete(self, kind: str, name: str, body: JsonObject) -> None:
        stored_object = self.objects.get((kind, name))
        if stored_object is None:
            return
        for field, value in body.get("preconditions", {}).items():
            if stored_object["metadata"][field] != value:
                raise ConflictError(f"{kind} {name} changed")
        del self.objects[kind, name]
        self._drop_children(stored_object["metadata"]["uid"])

    def _drop_children(self, uid: str) -> None:
        for key, item in list(self.objects.items()):
            owners = item["metadata"].get("ownerReferences", [])
            other_owners = [owner for owner in owners if owner["uid"] != uid]
            if owners and not other_owners:
                self._delete(*key, {})
            item["metadata"]["ownerReferences"] = other_owners

    def _matching(self, kind: str, selector: str) -> list[JsonObject]:
        objects_of_kind = [item for (stored_kind, _), item in self.objects.items() if stored_kind == kind]
        return [item for item in objects_of_kind if matches(item["metadata"].get("labels", {}), selector)]

    # What the cluster's controllers and people do.

    def apply_pipeline(self, name: str = "shapes", **spec: Any) -> JsonObject:  # noqa: ANN401 - fields of a spec
        """Create or change a pipeline; what is not given is minimal."""
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": minimal_spec() | spec,
        }
        return self._replace(KIND, name, body)

    def delete_pipeline(self, name: str = "shapes") -> None:
        """Delete a pipeline; Kubernetes' garbage collector takes what nobody else owns."""
        self._delete(KIND, name, {})

    def pipeline(self, name: str = "shapes") -> JsonObject:
        """The pipeline as it is now."""
        return self.objects[KIND, name]

    def condition(self, kind: str, name: str = "shapes") -> JsonObject:
        """One condition of the pipeline."""
        conditions = self.pipeline(name)["status"]["conditions"]
        condition: JsonObject = next(item for item in conditions if item["type"] == kind)
        return condition

    def names(self, kind: str) -> list[str]:
        """Names of all objects of the kind."""
        return sorted(name for its_kind, name in self.objects if its_kind == kind)

    def unfinished_jobs(self) -> list[JsonObject]:
        """Jobs that were let go and have no outcome yet."""
        return [
            item
            for (kind, _), item in self.objects.items()
            if kind == "Job" and "status" not in item and not item["spec"].get("suspend")
        ]

    def add_pod(self, job: JsonObject, status: JsonObject) -> JsonObject:
        """A pod of the Job."""
        name = f"{job['metadata']['name']}-{next(self._numbers)}"
        owner = {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
        labels = {**job["spec"]["template"]["metadata"]["labels"]}
        labels["batch.kubernetes.io/job-name"] = job["metadata"]["name"]
        head = {"name": name, "namespace": NAMESPACE, "labels": labels, "ownerReferences": [owner]}
        pod = self._replace("Pod", name, {"kind": "Pod", "metadata": head, "spec": {}})
        pod["status"] = status
        return pod

    def end_job(self, job: JsonObject, code: int, message: JsonObject, reason: str = "") -> None:
        """Let the builder end with this exit code and these last words."""
        ended = {"exitCode": code, "message": json.dumps(message), "reason": reason}
        state = {"name": naming.BUILD, "state": {"terminated": ended}}
        self.add_pod(job, {"phase": "Failed" if code else "Succeeded", "containerStatuses": [state]})
        self.finish_job(job, "Failed" if code else "Complete")

    def finish_job(self, job: JsonObject, condition: str) -> None:
        """Let the Job controller see that the Job ended."""
        entry = {"type": condition, "status": "True", "lastTransitionTime": now(), "message": "as told"}
        job["status"] = {"startTime": now(), "conditions": [entry]}

    def succeed_jobs(self) -> int:
        """Let every unfinished Job succeed; returns how many there were."""
        jobs = self.unfinished_jobs()
        for job in jobs:
            self.end_job(job, 0, result_of(job))
        return len(jobs)

    def set_ready(self, deployment: str, ready: int) -> None:
        """Let a Deployment have so many ready pods."""
        stored_object = self.objects["Deployment", deployment]
        stored_object["status"] = {
            "observedGeneration": stored_object["metadata"]["generation"],
            "readyReplicas": ready,
            "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]
            if ready
            else [],
        }


def _keep_what_was_not_applied(before: JsonObject, body: JsonObject) -> None:
    """An apply leaves alone what was set by other means: numbers of pods, and notes."""
    if body["kind"] == "Deployment":
        body["spec"] = {"replicas": before["spec"]["replicas"]} | body["spec"]
    notes = before["metadata"].get("annotations", {})
    if naming.ROLLOUT in notes:
        body["metadata"].setdefault("annotations", {})[naming.ROLLOUT] = notes[naming.ROLLOUT]


def now() -> str:
    return rfc3339(datetime.now(UTC))


def minimal_spec() -> JsonObject:
    return {
        "model": {"source": {"huggingFace": {"repo": "demo/shapes", "revision": REVISION}}},
        "targets": [{"name": "cpu"}],
    }


def digest_of(text: str) -> str:
    """64 hex digits that depend on the text."""
    return hashlib.sha256(text.encode()).hexdigest()


def result_of(job: JsonObject) -> JsonObject:
    """What the builder would say; equal arguments give equal artifacts."""
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    stage = arguments[2]
    if stage == "store":
        dry = "--dry-run" in arguments
        return {
            "stage": "gc",
            "digest": "",
            "freedBytes": 4096,
            "seconds": 0.5,
            "dryRun": dry,
            "deleted": 3,
            "retained": 9,
        }
    result: JsonObject = {"stage": stage, "digest": digest_of(job["metadata"]["name"][::-1])}
    result |= {"sizeBytes": 1000, "seconds": 1.5, "cached": False}
    if stage == "fetch":
        parts = ("text_encoder", "unet", "vae", "tokenizer", "scheduler")
        revision = arguments[arguments.index("--revision") + 1] if "--revision" in arguments else "claim"
        result["subfolders"] = {part: digest_of(part + (revision if part == "unet" else "")) for part in parts}
        result["weightBytes"] = dict.fromkeys(parts[:3], 1000)
        result["pipelineClass"] = "StableDiffusionPipeline"
    if stage == "export":
        result["content"] = digest_of("content" + job["metadata"]["name"])
    if stage == "compare":
        result |= {"passed": True, "reason": "Passed", "message": "The images are alike.", "images": 3}
        result |= {"worstPSNR": 41.5, "worstSSIM": 0.98, "colorShift": 0.01}
    if stage == "parity":
        result |= {"worstPSNR": 61.5, "minPSNR": 35.0, "worstLatentError": 0.0001}
    if stage == "assemble":
        document = json.loads(arguments[arguments.index("--spec") + 1])
        result["ensembles"] = [f"generate_{steps}_pipeline" for steps in document["pipelines"][0]["steps"]]
    return result


def parse_path(path: str) -> tuple[str, str, str]:
    """Kind, name and subresource of a URL path."""
    for kind, (prefix, plural) in COLLECTIONS.items():
        if path == f"{prefix}/{plural}":
            return kind, "", ""
        start = f"{prefix}/namespaces/{NAMESPACE}/{plural}"
        if path == start or path.startswith(start + "/"):
            name, _, subresource = unquote(path[len(start) + 1 :]).partition("/")
            return kind, name, f"/{subresource}" if subresource else ""
    raise AssertionError(f"unexpected path {path}")


def has_fields(item: JsonObject, query: dict[str, str]) -> bool:
    """Kubernetes' field selectors: equality of fields, by their paths."""
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, value = term.partition("=")
        field: Any = item
        for key in path.split("."):
            field = field.get(key, {})
        if field != value:
            return False
    return True


def matches(labels: dict[str, str], selector: str) -> bool:
    """Kubernetes' label selectors, as far as the operator uses them."""
    for term in re.split(r",(?![^(]*[)])", selector):
        if " in (" in term:
            key, _, values = term.partition(" in (")
            if labels.get(key) not in values.rstrip(")").split(","):
                return False
            continue
        key, equals, value = term.partition("=")
        if (key and key not in labels) or (equals and labels[key] != value):
            return False
    return True


__all__ = ["NAMESPACE", "REVISION", "FakeCluster", "Reference", "digest_of", "minimal_spec", "result_of"]
