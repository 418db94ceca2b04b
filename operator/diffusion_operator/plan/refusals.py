"""Actions that the API server refused, and which later ones of the same plan then wait; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_operator import naming
from diffusion_operator.conditions import ConditionType, ConditionUpdate, Reason
from diffusion_operator.manifests import route
from diffusion_operator.plan.actions import Action, Annotate, Apply, DeleteObject, Scale
from diffusion_operator.plan.observed import ObservedPipeline


@dataclass(frozen=True)
class Subject:
    """What an action is about.

    Attributes:
        kind: of the object.
        target: that it serves; empty for objects of all targets and for Jobs.
    """

    kind: str
    name: str
    target: str


@dataclass(frozen=True)
class Refusal:
    """One refused action.

    Attributes:
        reason: NameConflict or ObjectRejected.
        text: the API server's words, or those about the object's other owner.
    """

    action: Action
    subject: Subject
    reason: Reason
    text: str

    @property
    def message(self) -> str:
        """Names the object."""
        name = f"{self.subject.kind} {self.subject.name}"
        return self.text if self.text.startswith(name) else f"{name}: {self.text}"


def action_subject(action: Action, observed: ObservedPipeline) -> Subject:
    """The object that the action writes."""
    body = getattr(action, "body", None)
    if body is not None:
        labels = body["metadata"].get("labels", {}) if isinstance(action, Apply) else {}
        return Subject(body["kind"], body["metadata"]["name"], labels.get(naming.TARGET, ""))
    kind = action.kind if isinstance(action, DeleteObject) else "Job"
    if isinstance(action, Scale | Annotate):
        kind = "Deployment"
    name = str(getattr(action, "name", ""))
    view = observed.find(kind, name)
    return Subject(kind, name, (view.target or "") if view is not None else "")


def has_to_wait(action: Action, observed: ObservedPipeline, refusals: Sequence[Refusal]) -> bool:
    """Whether the action could harm what serves, because an earlier one of the plan was refused.

    Pods are taken from a target only when all that should serve instead was applied, and a route names no Service
    that is not there. Builds, and all other targets, go on.
    """
    serving = [refusal for refusal in refusals if isinstance(refusal.action, Apply | Scale | Annotate)]
    if isinstance(action, Scale | Annotate | DeleteObject):
        target = action_subject(action, observed).target
        return any(not target or refusal.subject.target in {"", target} for refusal in serving)
    is_route = isinstance(action, Apply) and action.body["kind"] in route.KINDS
    return is_route and any(refusal.subject.kind == "Service" for refusal in serving)


def refusal_condition(refusals: Sequence[Refusal]) -> ConditionUpdate:
    """`Accepted`, with every refused object; the reason is that of the first."""
    text = " ".join(dict.fromkeys(refusal.message for refusal in refusals))
    return ConditionUpdate(ConditionType.ACCEPTED, refusals[0].reason, text)
