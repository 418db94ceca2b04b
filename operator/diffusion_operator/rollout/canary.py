"""A canary of all targets in lockstep: no share grows before the smaller one was judged on every target. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from diffusion_operator.analysis import Verdict
from diffusion_operator.rollout import rolling
from diffusion_operator.rollout.state import (
    Note,
    Observation,
    Progress,
    RevisionState,
    RolloutState,
    RolloutStep,
    Strategy,
)

MOST_LOSSES = 2
START = Note("Pictures")
ORDER = ("Rejected", "Pictures", "Step", "Promoting", "Served")
PICTURES, NOT_READY, INCONCLUSIVE, ABORTED = "PictureQuality", "NotReady", "Inconclusive", "Aborted"


def steps(strategy: Strategy, observation: Observation) -> Mapping[str, RolloutStep]:
    """What to do now with each target."""
    moving = {name: state for name, state in observation.targets.items() if _is_moving(state)}
    # Engines of all targets have to be there before the first pod of any starts.
    waits = any(state.desired is None or state.suspended for state in observation.targets.values())
    result = {}
    for name, state in observation.targets.items():
        if name not in moving:
            result[name] = rolling.step(state, strategy.history)
        elif waits:
            result[name] = rolling.hold(state, strategy.history)
    if moving and not waits:
        result |= Lockstep(strategy, moving, observation).steps()
    return result


def _is_moving(state: RolloutState) -> bool:
    """The first revision ever has nobody to be compared with."""
    return state.desired not in {None, state.stable} and not state.is_lost


@dataclass(frozen=True)
class Lockstep:
    """The targets whose desired revision is not the stable one, all of them with a stable revision that worked."""

    strategy: Strategy
    moving: Mapping[str, RolloutState]
    seen: Observation

    def steps(self) -> dict[str, RolloutStep]:
        """What to do now with each of them."""
        goal = self._goal()
        return {name: self._step(state, goal) for name, state in self.moving.items()}

    # What comes next, for all of them.

    def _goal(self) -> Note:
        names = {state.desired for state in self.moving.values()}
        notes = list(self._notes())
        now = min(notes, key=lambda note: (ORDER.index(note.phase), note.step, note.settled))
        now = replace(now, served=False)
        if self.seen.abort in names:
            return now if now.phase == "Rejected" else _rejected(now, ABORTED, "The canary was aborted by hand.")
        if self.seen.promote in names or all(note.served for note in notes):
            return now if now.phase == "Promoting" else Note("Promoting", verdict=now.verdict)
        if now.phase in {"Rejected", "Promoting"}:
            return now
        if now.phase == "Step":
            now = replace(now, step=min(now.step, len(self.strategy.weights) - 1))
        return self._judged(now) if now.settled else self._settling(now)

    def _notes(self) -> Iterator[Note]:
        for state in self.moving.values():
            found = state.candidate
            note = found.note if found is not None and found.note is not None else START
            # One that served before and is wanted with others that did not is judged with them.
            yield replace(START, served=True) if note.phase == "Served" else note

    def _settling(self, now: Note) -> Note:
        weight = self._weight(now)
        ready = all(_ready(state) >= self._pods(state, now) for state in self.moving.values())
        if ready and all(state.weight(state.desired) == weight for state in self.moving.values()):
            return replace(now, settled=True)
        if self._age() >= self.strategy.progress_deadline:
            limit = f"{self.strategy.progress_deadline} seconds"
            return _rejected(now, NOT_READY, f"{self._unready()} not ready within {limit} (progressDeadline).")
        return now

    def _judged(self, now: Note) -> Note:
        if not all(map(_ready, self.moving.values())):
            if now.losses >= MOST_LOSSES:
                return _rejected(now, NOT_READY, f"{self._unready()} lost all ready pods, {now.losses + 1} times.")
            return replace(now, settled=False, losses=now.losses + 1)
        verdict, pause = self._verdict(), self._pause(now)
        if verdict.outcome == "Fail":
            return replace(now, phase="Rejected", verdict=verdict)
        if verdict.outcome == "Pass":
            return self._following(now, verdict) if self._age() >= pause else now
        if self._age() < pause + self.strategy.deadline:
            return now
        text = f"No verdict within {self.strategy.deadline} seconds (analysis.deadline): {verdict.message}"
        return _rejected(now, INCONCLUSIVE, text, verdict.numbers)

    def _following(self, now: Note, verdict: Verdict) -> Note:
        step = 0 if now.phase == "Pictures" else now.step + 1
        if step < len(self.strategy.weights):
            return Note("Step", step=step, losses=now.losses, verdict=verdict)
        return Note("Promoting", losses=now.losses, verdict=verdict)

    def _verdict(self) -> Verdict:
        """Worst first: what fails on one target fails on all."""
        nothing = Verdict("Inconclusive", INCONCLUSIVE, "Nothing is known yet.")
        found = [(name, self.seen.verdicts.get(name, nothing)) for name in self.moving]
        rank = {"Fail": 0, "Inconclusive": 1, "Pass": 2}
        name, verdict = min(found, key=lambda item: rank[item[1].outcome])
        if len(found) == 1:
            return verdict
        return replace(verdict, message=f"Target {name}: {verdict.message}")

    def _age(self) -> float:
        """Seconds since the last of them came to this phase."""
        return min((found.age if found is not None else 0.0) for found in self._candidates())

    def _candidates(self) -> Iterator[RevisionState | None]:
        for state in self.moving.values():
            yield state.candidate

    def _unready(self) -> str:
        names = [name for name, state in self.moving.items() if _ready(state) < self._pods(state, START)]
        return f"Target {', '.join(names or self.moving)}: the canary's pods were"

    def _pause(self, now: Note) -> int:
        return self.strategy.pauses[now.step] if now.phase == "Step" else 0

    def _weight(self, now: Note) -> int:
        return self.strategy.weights[now.step] if now.phase == "Step" else 0

    # What that means for one of them.

    def _step(self, state: RolloutState, goal: Note) -> RolloutStep:
        desired = state.desired or ""
        promoted = goal.phase == "Promoting" and self._all_full()
        canary, weight = (None, 0) if promoted else self._share(state, goal)
        keep = {desired, *({state.stable} if state.stable else ())}
        idle, remove = rolling.retire(state, keep, self.strategy.history)
        return RolloutStep(
            traffic=desired if promoted else state.stable,
            desired_replicas=self._replicas(state, goal),
            progress=_progress(goal),
            scale=_restored(state) | idle,
            remove=remove,
            canary=canary,
            weight=weight,
            notes=rolling.served_note(state) | _changed(state, goal),
        )

    def _all_full(self) -> bool:
        return all(_ready(state) >= max(1, state.replicas) for state in self.moving.values())

    def _replicas(self, state: RolloutState, goal: Note) -> int | None:
        """Pods of the candidate; never fewer than its live share needs."""
        live, found = state.weight(state.desired), state.candidate
        if goal.phase == "Rejected":
            # Nothing new starts; what has a share ends after it.
            return (found.replicas if live else 0) if found is not None else None
        return max(self._pods(state, goal), self.strategy.pods(live, state.replicas) if live else 0)

    def _pods(self, state: RolloutState, goal: Note) -> int:
        if goal.phase == "Promoting":
            return max(1, state.replicas)
        return self.strategy.pods(self._weight(goal) or self.strategy.weights[0], state.replicas)

    def _share(self, state: RolloutState, goal: Note) -> tuple[str | None, int]:
        """The canary's share now. A share moves only to a side with ready pods, and grows on all targets together."""
        live, ready = state.weight(state.desired), _ready(state)
        held = rolling.kept_share(state)
        if goal.phase == "Rejected" or ready == 0 or held[0] not in {None, state.desired}:
            return held
        # Without a share it can be asked for by name, and gets copies of requests.
        wanted = live if goal.phase == "Promoting" else self._weight(goal)
        if wanted > live:
            return state.desired, wanted if self._may_grow(goal) else live
        return state.desired, live if held[0] is not None else wanted

    def _may_grow(self, goal: Note) -> bool:
        return all(
            _ready(state) >= self._pods(state, goal)
            and not any(weight for name, weight in state.weights.items() if name != state.desired)
            and not (self.strategy.by_pods and state.strays)
            for state in self.moving.values()
        )


def _ready(state: RolloutState) -> int:
    return state.ready(state.desired)


def _rejected(now: Note, reason: str, message: str, numbers: Mapping[str, float] | None = None) -> Note:
    return replace(now, phase="Rejected", verdict=Verdict("Fail", reason, message, numbers or {}))


def _progress(goal: Note) -> Progress:
    if goal.phase == "Rejected":
        return "Rejected"
    return "Promoting" if goal.phase == "Promoting" else "Canary"


def _restored(state: RolloutState) -> dict[str, int]:
    """The stable revision has its pods again after it was suspended."""
    found = state.find(state.stable)
    return {found.name: state.replicas} if found is not None and found.replicas == 0 else {}


def _changed(state: RolloutState, goal: Note) -> dict[str, Note]:
    found = state.candidate
    before = found.note if found is not None else None
    wanted = replace(goal, served=before is not None and before.served)
    if state.desired is None or before == wanted or (found is None and goal.phase == "Rejected"):
        return {}
    return {state.desired: wanted}
