"""A canary of all targets in lockstep; pure and stateless.

Every pass reads how far each target's candidate (the desired revision that is not stable yet) has come from its
Deployment, takes the earliest as the position of all, and decides where they go from there:

=================  ===================================  ==================================================
phase              the candidate has                    next phase
=================  ===================================  ==================================================
ImageComparison    the pods of step 0, no requests      observed and passed: Step 0
Step i             weights[i] % of the requests         observed, passed and pauses[i] seconds old: Step i+1;
                                                        after the last step: Promoting
Promoting          as many pods as the stable revision  all pods of all targets ready: it becomes stable
Rejected           its share until the stable pods can  another desired revision: ImageComparison of that one
                   take over, then no requests, no pods
Served             (is or was stable)                   desired again: Promoting when all candidates served
                                                        before, else ImageComparison
=================  ===================================  ==================================================

ImageComparison and Step begin with `observing` false: pods start and the share moves. Once every target has its pods
ready and its weight live, `observing` becomes true, the age restarts, and verdicts count. What else moves a phase:

==============================================  ===========================================================
event                                           effect
==============================================  ===========================================================
verdict Fail on any target                      Rejected, with that verdict
verdict Inconclusive for pause + deadline       Rejected (Inconclusive)
pods not ready within progress_deadline         Rejected (NotReady)
a target loses all ready pods while observing   the same phase, not observing; the third time Rejected (NotReady)
annotation `abort` with a candidate's revision  Rejected (Aborted)
annotation `promote` with such a revision       Promoting
suspend, or a desired revision that is unbuilt  nothing new: `rolling.wait_for_build`
==============================================  ===========================================================

No share grows before the smaller one passed on every target, and a share moves only to a side with ready pods.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from diffusion_operator.analysis.verdict import Verdict, VerdictReason
from diffusion_operator.rollout import rolling
from diffusion_operator.rollout.progress import RolloutProgress
from diffusion_operator.rollout.state import (
    RolloutDecision,
    RolloutObservation,
    RolloutState,
    RolloutStatus,
    Strategy,
)

MAX_READINESS_LOSSES = 2
INITIAL_PROGRESS = RolloutProgress("ImageComparison")
PHASE_ORDER = ("Rejected", "ImageComparison", "Step", "Promoting", "Served")


def decide(strategy: Strategy, observation: RolloutObservation) -> Mapping[str, RolloutDecision]:
    """The next step of each target."""
    moving = {name: state for name, state in observation.targets.items() if _needs_rollout(state)}
    # Engines of all targets have to be there before the first pod of any starts.
    blocked = any(state.desired is None or state.suspended for state in observation.targets.values())
    decisions = {}
    for name, state in observation.targets.items():
        if name not in moving:
            decisions[name] = rolling.decide(state, strategy.history)
        elif blocked:
            decisions[name] = rolling.wait_for_build(state, strategy.history)
    if moving and not blocked:
        decisions |= CanaryPlanner(strategy, moving, observation).decisions()
    return decisions


def _needs_rollout(state: RolloutState) -> bool:
    """The first revision ever has no other to be compared with."""
    return state.desired not in {None, state.stable} and not state.has_no_working_stable


@dataclass(frozen=True)
class CanaryPlanner:
    """The targets whose desired revision is not the stable one; each has a stable revision that worked."""

    strategy: Strategy
    targets: Mapping[str, RolloutState]
    observation: RolloutObservation

    def decisions(self) -> dict[str, RolloutDecision]:
        """The next step of each of them."""
        progress = self._next_progress()
        return {name: self._step(state, progress) for name, state in self.targets.items()}

    # Where all of them go.

    def _next_progress(self) -> RolloutProgress:
        revisions = {state.desired for state in self.targets.values()}
        positions = list(self._positions())
        present = min(positions, key=lambda item: (PHASE_ORDER.index(item.phase), item.step, item.observing))
        present = replace(present, was_stable=False)
        if self.observation.abort in revisions:
            is_over = present.phase == "Rejected"
            return present if is_over else _rejected(present, VerdictReason.ABORTED, "The canary was aborted by hand.")
        if self.observation.promote in revisions or all(position.was_stable for position in positions):
            is_promoting = present.phase == "Promoting"
            return present if is_promoting else RolloutProgress("Promoting", verdict=present.verdict)
        if present.phase in {"Rejected", "Promoting"}:
            return present
        if present.phase == "Step":
            present = replace(present, step=min(present.step, len(self.strategy.weights) - 1))
        return self._after_verdict(present) if present.observing else self._after_start(present)

    def _positions(self) -> Iterator[RolloutProgress]:
        for state in self.targets.values():
            candidate = state.candidate
            progress = (candidate.progress if candidate is not None else None) or INITIAL_PROGRESS
            # One that served before and is desired together with others that did not is tried with them.
            yield replace(INITIAL_PROGRESS, was_stable=True) if progress.phase == "Served" else progress

    def _after_start(self, present: RolloutProgress) -> RolloutProgress:
        weight = self._weight(present)
        ready = all(_ready(state) >= self._required_pods(state, present) for state in self.targets.values())
        if ready and all(state.weight(state.desired) == weight for state in self.targets.values()):
            return replace(present, observing=True)
        if self._phase_seconds() >= self.strategy.progress_deadline:
            cause = f"not ready within {self.strategy.progress_deadline} seconds (progressDeadline)"
            return _rejected(present, VerdictReason.NOT_READY, f"{self._unready_targets()} {cause}.")
        return present

    def _after_verdict(self, present: RolloutProgress) -> RolloutProgress:
        if not all(map(_ready, self.targets.values())):
            losses = present.readiness_losses + 1
            if losses > MAX_READINESS_LOSSES:
                cause = f"lost all ready pods, {losses} times"
                return _rejected(present, VerdictReason.NOT_READY, f"{self._unready_targets()} {cause}.")
            return replace(present, observing=False, readiness_losses=losses)
        verdict, pause = self._worst_verdict(), self._pause(present)
        if verdict.outcome == "Fail":
            return replace(present, phase="Rejected", verdict=verdict)
        if verdict.outcome == "Pass":
            return self._next_phase(present, verdict) if self._phase_seconds() >= pause else present
        if self._phase_seconds() < pause + self.strategy.deadline:
            return present
        text = f"No verdict within {self.strategy.deadline} seconds (analysis.deadline): {verdict.message}"
        return _rejected(present, VerdictReason.INCONCLUSIVE, text, verdict.numbers)

    def _next_phase(self, present: RolloutProgress, verdict: Verdict) -> RolloutProgress:
        step = 0 if present.phase == "ImageComparison" else present.step + 1
        losses = present.readiness_losses
        if step < len(self.strategy.weights):
            return RolloutProgress("Step", step=step, readiness_losses=losses, verdict=verdict)
        return RolloutProgress("Promoting", readiness_losses=losses, verdict=verdict)

    def _worst_verdict(self) -> Verdict:
        """The worst of all targets: what fails on one fails on all."""
        unknown = Verdict("Inconclusive", VerdictReason.INCONCLUSIVE, "Nothing is known yet.")
        verdicts = [(name, self.observation.verdicts.get(name, unknown)) for name in self.targets]
        rank = {"Fail": 0, "Inconclusive": 1, "Pass": 2}
        name, verdict = min(verdicts, key=lambda item: rank[item[1].outcome])
        if len(verdicts) == 1:
            return verdict
        return replace(verdict, message=f"Target {name}: {verdict.message}")

    def _phase_seconds(self) -> float:
        """Seconds since the last of them came to this phase."""
        candidates = [state.candidate for state in self.targets.values()]
        return min((candidate.phase_seconds if candidate is not None else 0.0) for candidate in candidates)

    def _unready_targets(self) -> str:
        targets, progress = self.targets.items(), INITIAL_PROGRESS
        names = [name for name, state in targets if _ready(state) < self._required_pods(state, progress)]
        return f"Target {', '.join(names or self.targets)}: the canary's pods were"

    def _pause(self, progress: RolloutProgress) -> int:
        return self.strategy.pauses[progress.step] if progress.phase == "Step" else 0

    def _weight(self, progress: RolloutProgress) -> int:
        return self.strategy.weights[progress.step] if progress.phase == "Step" else 0

    # What that means for one of them.

    def _step(self, state: RolloutState, progress: RolloutProgress) -> RolloutDecision:
        desired = state.desired or ""
        promoted = progress.phase == "Promoting" and self._fully_scaled()
        canary, weight = (None, 0) if promoted else self._canary_weight(state, progress)
        keep = {desired, *({state.stable} if state.stable else ())}
        scale, remove = rolling.retire_revisions(state, keep, self.strategy.history)
        return RolloutDecision(
            stable=desired if promoted else state.stable,
            desired_replicas=self._replicas(state, progress),
            status=_status(progress),
            replica_changes=_restored_replicas(state) | scale,
            removals=remove,
            canary=canary,
            weight=weight,
            progress_updates=rolling.stable_update(state) | _progress_update(state, progress),
        )

    def _fully_scaled(self) -> bool:
        return all(_ready(state) >= max(1, state.replicas) for state in self.targets.values())

    def _replicas(self, state: RolloutState, progress: RolloutProgress) -> int | None:
        """Pods of the candidate; never fewer than its live share needs."""
        live, candidate = state.weight(state.desired), state.candidate
        if progress.phase == "Rejected":
            # Nothing new starts; a share ends before its pods do.
            return (candidate.replicas if live else 0) if candidate is not None else None
        return max(self._required_pods(state, progress), self.strategy.pods(live, state.replicas) if live else 0)

    def _required_pods(self, state: RolloutState, progress: RolloutProgress) -> int:
        if progress.phase == "Promoting":
            return max(1, state.replicas)
        return self.strategy.pods(self._weight(progress) or self.strategy.weights[0], state.replicas)

    def _canary_weight(self, state: RolloutState, progress: RolloutProgress) -> tuple[str | None, int]:
        """The canary's share now. A share moves only to a side with ready pods, and grows on all targets together."""
        live, ready = state.weight(state.desired), _ready(state)
        frozen = rolling.frozen_share(state)
        if progress.phase == "Rejected" or ready == 0 or frozen[0] not in {None, state.desired}:
            return frozen
        # Without a share it can be requested by header, and gets copies of requests.
        weight = live if progress.phase == "Promoting" else self._weight(progress)
        if weight > live:
            return state.desired, weight if self._may_grow(progress) else live
        return state.desired, live if frozen[0] is not None else weight

    def _may_grow(self, progress: RolloutProgress) -> bool:
        return all(
            _ready(state) >= self._required_pods(state, progress)
            and not any(weight for name, weight in state.weights.items() if name != state.desired)
            and not (self.strategy.splits_by_pods and state.unexpected_pods)
            for state in self.targets.values()
        )


def _ready(state: RolloutState) -> int:
    return state.ready(state.desired)


def _rejected(
    present: RolloutProgress, reason: str, message: str, numbers: Mapping[str, float] | None = None
) -> RolloutProgress:
    return replace(present, phase="Rejected", verdict=Verdict("Fail", reason, message, numbers or {}))


def _status(progress: RolloutProgress) -> RolloutStatus:
    if progress.phase == "Rejected":
        return "Rejected"
    return "Promoting" if progress.phase == "Promoting" else "Canary"


def _restored_replicas(state: RolloutState) -> dict[str, int]:
    """The stable revision gets its pods back after it was suspended."""
    stable = state.find(state.stable)
    return {stable.name: state.replicas} if stable is not None and stable.replicas == 0 else {}


def _progress_update(state: RolloutState, progress: RolloutProgress) -> dict[str, RolloutProgress]:
    candidate = state.candidate
    present = candidate.progress if candidate is not None else None
    updated = replace(progress, was_stable=present is not None and present.was_stable)
    if state.desired is None or present == updated or (candidate is None and progress.phase == "Rejected"):
        return {}
    return {state.desired: updated}
