"""The graph of builds: fetch, export, compile, assemble, parity. Each stage's results name the next stage's Jobs."""

from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field, replace

from diffusion_contract.engines import CHECKPOINT, engines, sources
from diffusion_contract.enums import Stage
from diffusion_contract.spec import DiffusionPipelineSpec, Target, apply_variant
from diffusion_operator.manifests.common import Placement, placement_of
from diffusion_operator.plan.build_jobs import BuildJobFactory, StoreClaim
from diffusion_operator.plan.build_steps import BuildStep, build_step
from diffusion_operator.settings import Settings
from diffusion_operator.views.job import JobView


@dataclass(frozen=True)
class BuildGraph:
    """All steps that are known so far.

    Attributes:
        engine_names: names of the engines that the spec asks for.
        fetches: sources by role; `model` is the checkpoint.
        exports: by engine; holds those whose sources are all there.
        compiles: by engine and SKU; holds those whose export is done.
        assembles: by SKU; holds those whose engines are all there.
        parity_steps: by SKU; holds those whose repository is there.
        variants: of an experiment, by name. What they have in common with the pipeline are the same Jobs.
    """

    engine_names: tuple[str, ...]
    skus: tuple[str, ...]
    fetches: Mapping[str, BuildStep]
    exports: Mapping[str, BuildStep]
    compiles: Mapping[tuple[str, str], BuildStep]
    assembles: Mapping[str, BuildStep]
    parity_steps: Mapping[str, BuildStep]
    variants: Mapping[str, "BuildGraph"] = field(default_factory=dict)

    @property
    def is_assembled(self) -> bool:
        """Whether every SKU's repository is known: its engines are all there."""
        return len(self.assembles) == len(self.skus)

    @property
    def is_complete(self) -> bool:
        """Whether nothing remains to be built."""
        assembled = self.is_assembled and all(item.is_assembled for item in self.variants.values())
        return assembled and all(step.succeeded for step in self.steps())

    def steps(self) -> tuple[BuildStep, ...]:
        """All known steps in the order of the chain, those of variants last; each Job once."""
        steps = {step.request.name: step for step in self.pipeline_steps()}
        for variant in self.variants.values():
            steps = {step.request.name: step for step in variant.steps()} | steps
        return tuple(steps.values())

    def pipeline_steps(self) -> tuple[BuildStep, ...]:
        """All known steps without those that only variants need."""
        return (*self.engine_steps(), *self.repository_steps())

    def repository_steps(self) -> tuple[BuildStep, ...]:
        """All known steps from the engines to what can be served."""
        return (*self.assembles.values(), *self.parity_steps.values())

    def repository(self, sku: str) -> BuildStep | None:
        """The SKU's repository, once its images have been compared with those of diffusers."""
        parity = self.parity_steps.get(sku)
        return self.assembles[sku] if parity is not None and parity.succeeded else None

    def engine_steps(self) -> tuple[BuildStep, ...]:
        """All known steps up to the engines."""
        return (*self.fetches.values(), *self.exports.values(), *self.compiles.values())

    @property
    def engine_count(self) -> int:
        """Number of engines that the spec asks for."""
        return len(self.engine_names) * len(self.skus)

    @property
    def built_engine_count(self) -> int:
        """Number of engines in the store."""
        return sum(item.succeeded for item in self.compiles.values())

    def resolved_stages(self) -> frozenset[str]:
        """Stages whose Jobs are all in the graph: any other Job of such a stage is obsolete."""
        steps_and_counts: Mapping[Stage, tuple[Sized, int]] = {
            Stage.FETCH: (self.fetches, len(self.fetches)),
            Stage.EXPORT: (self.exports, len(self.engine_names)),
            Stage.COMPILE: (self.compiles, self.engine_count),
            Stage.ASSEMBLE: (self.assembles, len(self.skus)),
            Stage.PARITY: (self.parity_steps, len(self.skus)),
        }
        stages = frozenset(stage for stage, (steps, count) in steps_and_counts.items() if len(steps) == count)
        return stages.intersection(*(item.resolved_stages() for item in self.variants.values()))


def build_graph(
    spec: DiffusionPipelineSpec, store: StoreClaim, settings: Settings, jobs: Mapping[str, JobView]
) -> BuildGraph:
    """The steps, as far as the results of earlier ones name them; also those of the variants."""
    experiment = spec.rollout.experiment if spec.rollout is not None else None
    variants = {
        item.name: _graph(apply_variant(item, spec), store, settings, jobs)
        for item in (experiment.variants if experiment is not None else ())
    }
    return replace(_graph(spec, store, settings, jobs), variants=variants)


def _graph(
    spec: DiffusionPipelineSpec, store: StoreClaim, settings: Settings, jobs: Mapping[str, JobView]
) -> BuildGraph:
    factory = BuildJobFactory(spec, store, settings)
    specs = engines(spec)
    places = _placements(spec.targets, settings)
    fetches = {ref.name: build_step(factory.fetch(ref), jobs) for ref in sources(spec.model)}
    exports = {
        engine.name: build_step(factory.export(engine, fetches), jobs)
        for engine in specs
        if all(fetches[name].succeeded for name in engine.sources)
    }
    compiles = {
        (engine.name, sku): build_step(factory.compile(engine, exports[engine.name], sku, place), jobs)
        for engine in specs
        if engine.name in exports and exports[engine.name].succeeded
        for sku, place in places.items()
    }
    assembles = {
        sku: build_step(factory.assemble(fetches[CHECKPOINT], _engine_digests(compiles, sku), place.runtime), jobs)
        for sku, place in places.items()
        if len(_engine_digests(compiles, sku)) == len(specs)
    }
    parity_steps = {
        sku: build_step(factory.parity(item, fetches.values()), jobs)
        for sku, item in assembles.items()
        if item.succeeded
    }
    names = tuple(engine.name for engine in specs)
    return BuildGraph(names, tuple(places), fetches, exports, compiles, assembles, parity_steps)


def _placements(targets: Iterable[Target], settings: Settings) -> dict[str, Placement]:
    """Where engines of each SKU are compiled: where the first target of that SKU runs, on one GPU."""
    placements: dict[str, Placement] = {}
    for target in targets:
        placements.setdefault(target.sku, placement_of(target, 1, None, settings.gpu_label))
    return placements


def _engine_digests(compiles: Mapping[tuple[str, str], BuildStep], sku: str) -> dict[str, str]:
    return {name: item.digest for (name, engine_sku), item in compiles.items() if engine_sku == sku and item.succeeded}
