"""What the operator's role allows: one of an earlier version may lack kinds, or watching them."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_operator.errors import OperatorError, UnavailableError
from diffusion_operator.json_objects import JsonObject, as_object
from diffusion_operator.kube_client import COLLECTIONS, KubeClient, RejectedError
from diffusion_operator.object_cache import SETTLED_KINDS

log = logging.getLogger(__name__)
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
DISPENSABLE = frozenset({"PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"})
"""Kinds without whose events, or even without whose lists, most pipelines are served as they should be."""
PAUSES_SECONDS = (0.2, 1.0, 2.0)
ADVICE = (
    "Give it the role of the chart of this version (helm upgrade, or deploy/install.yaml), then restart the operator."
)


@dataclass(frozen=True)
class Restrictions:
    """Kinds that the role does not allow as this version needs them.

    Attributes:
        unlisted: cannot be listed: there seem to be no such objects.
        unwatched: have no events, and are listed with every pass; holds those that cannot be listed, too.
    """

    unlisted: frozenset[str] = frozenset()
    unwatched: frozenset[str] = frozenset()


async def read_restrictions(client: KubeClient, namespaces: Sequence[str]) -> Restrictions:
    """Ask the API server; what is missing is logged, with what to do.

    Args:
        client: of the API server.
        namespaces: that are watched; empty means all.

    Raises:
        UnavailableError: without what is missing no pipeline can be served.
    """
    kinds, places = sorted(SETTLED_KINDS), tuple(namespaces) or ("",)
    questions = [(kind, verb) for verb in ("list", "watch") for kind in kinds]
    answers = await asyncio.gather(*(_is_allowed(client, kind, verb, places) for kind, verb in questions))
    refusals = [question for question, is_allowed in zip(questions, answers, strict=True) if not is_allowed]
    unlisted, unwatched = frozenset(kind for kind, verb in refusals if verb == "list"), frozenset(dict(refusals))
    if not refusals:
        return Restrictions()
    rights = ", ".join(f"{verb} {COLLECTIONS[kind][1]}" for kind, verb in refusals)
    if unwatched - DISPENSABLE:
        raise UnavailableError(f"The operator's role does not allow: {rights}. {ADVICE}")
    log.warning("the operator's role does not allow: %s. It works on without, with more requests. %s", rights, ADVICE)
    if unlisted:
        plurals = ", ".join(COLLECTIONS[kind][1] for kind in sorted(unlisted))
        log.warning("pipelines that need %s are not accepted, and existing ones are left alone", plurals)
    return Restrictions(unlisted, unwatched)


async def _is_allowed(client: KubeClient, kind: str, verb: str, namespaces: Sequence[str]) -> bool:
    """In all of these namespaces; also where nobody may ask, or nothing answers: then what is tried will say it."""
    prefix, plural = COLLECTIONS[kind]
    group = prefix.split("/")[2] if prefix.startswith("/apis/") else ""
    for namespace in namespaces:
        attributes = {"group": group, "resource": plural, "verb": verb, "namespace": namespace}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        review = await _answer(client, body)
        if review is not None and not as_object(review.get("status")).get("allowed"):
            return False
    return True


async def _answer(client: KubeClient, body: JsonObject) -> JsonObject | None:
    for pause in PAUSES_SECONDS:
        try:
            return await client.request("POST", REVIEWS, body)
        except RejectedError as error:
            log.info("the operator may not ask for its rights: %s", error)
            return None
        except OperatorError as error:
            log.info("the operator's rights are not known yet: %s", error)
            await asyncio.sleep(pause)
    return None
