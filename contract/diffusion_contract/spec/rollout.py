"""How a new revision gets the traffic."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from diffusion_contract.base import ATOMIC, ApiModel, Duration, Hostname, ImageName, ObjectName, Rule
from diffusion_contract.spec.experiment import Experiment

Weight = Annotated[int, Field(ge=1, le=99)]
Ratio = Annotated[float, Field(ge=1, le=100)]
HeaderText = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]


class RolloutStep(ApiModel):
    """A weight of the canary, held until its analysis has a verdict."""

    weight: Weight = Field(description="Percent of the requests that the canary gets.")
    pause: Duration = Field(default="2m", description="Minimum duration of the step, such as 60s or 10m.")


class GatewayRef(ApiModel):
    """A Gateway (Gateway API v1) that the routes attach to."""

    name: ObjectName = Field(description="Name of the Gateway.")
    namespace: ObjectName | None = Field(
        default=None, description="Namespace of the Gateway. Defaults to the pipeline's."
    )
    section_name: ObjectName | None = Field(default=None, description="Listener of the Gateway. Defaults to all.")
    hostnames: Annotated[list[Hostname], Field(max_length=16), ATOMIC] | None = Field(
        default=None, description="Host names of the routes. Defaults to the listener's."
    )


class HeaderMatch(ApiModel):
    """Requests with this header go to the canary, whatever its weight is."""

    name: HeaderText = Field(default="x-diffusion-revision", description="Name of the header.")
    value: HeaderText = Field(default="canary", description="Value of the header.")


class Traffic(ApiModel):
    """How traffic is split; without a Gateway, by the number of pods."""

    rules = (
        Rule(
            "has(self.gateway) || !has(self.mirrorPercent)",
            "only a Gateway can copy requests: add traffic.gateway, or leave mirrorPercent out",
            lambda self: self.gateway is not None or self.mirror_percent is None,
            ".mirrorPercent",
        ),
    )

    gateway: GatewayRef | None = Field(
        default=None,
        description="Gateway whose HTTPRoute and GRPCRoute split the requests by weight. Without it the weight is the "
        "ratio of pods: with n stable pods the canary gets at least 1/(n+1) and at most half.",
    )
    header: HeaderMatch = Field(
        default=HeaderMatch(), description="For testers, with a Gateway: requests with this header go to the canary."
    )
    mirror_percent: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None,
        description="With a Gateway: percent of the requests that the canary gets a copy of, from its first pod on; "
        "its responses are discarded.",
    )


class GoldenPrompt(ApiModel):
    """A prompt for which images of both revisions are compared."""

    prompt: Annotated[str, Field(min_length=1, max_length=1024)] = Field(description="Prompt.")
    seed: Annotated[int, Field(ge=0, le=4294967295)] = Field(default=0, description="Seed of the initial noise.")
    steps: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Step count. Defaults to the largest that is served."
    )


class Scorer(ApiModel):
    """User-provided container that scores the images.

    Its last argument is a folder with `stable/N.png`, `canary/N.png` and `prompts.json`; it writes `score.json` there,
    {"passed": true, "message": "..."}, and ends with exit code 0.
    """

    image: ImageName = Field(description="Container image.")
    command: (
        Annotated[list[Annotated[str, Field(max_length=1024)]], Field(min_length=1, max_length=32), ATOMIC] | None
    ) = Field(default=None, description="Command of the container. Defaults to that of its image.")


class ImageCriteria(ApiModel):
    """What images are compared for, and how different they may be."""

    prompts: Annotated[list[GoldenPrompt], Field(min_length=1, max_length=8), ATOMIC] | None = Field(
        default=None, description="Golden prompts. Defaults to built-in ones."
    )
    min_psnr: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None,
        alias="minPSNR",
        description="Minimum PSNR of each image pair, dB. Set it only for changes that must not alter images.",
    )
    min_ssim: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None,
        alias="minSSIM",
        description="Minimum SSIM of each image pair. Set it only for changes that must not alter images.",
    )
    max_color_shift: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.25,
        description="Maximum mean difference between the sorted values of a color channel and those of the stable "
        "revision; 1 is black against white.",
    )


class Quality(ImageCriteria):
    """Criteria of the image comparison."""

    scorer: Scorer | None = Field(
        default=None, description="User-provided container that scores the images, in addition."
    )


class Analysis(ApiModel):
    """Criteria of the analysis: the canary against the stable revision at the same time."""

    interval: Duration = Field(default="30s", description="Interval at which the servers' metrics are read.")
    deadline: Duration = Field(
        default="10m",
        description="Maximum time without a verdict after the pause of a step; then the canary is rejected.",
    )
    min_requests: Annotated[int, Field(ge=1, le=1000000)] = Field(
        default=20, description="Requests that each revision must have answered before the step is evaluated."
    )
    max_error_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01, description="Maximum excess of the canary's error ratio over that of the stable revision."
    )
    max_p95_ratio: Ratio = Field(
        default=1.2, alias="maxP95Ratio", description="Maximum ratio of the 95th percentiles of the latency."
    )
    max_step_latency_ratio: Ratio = Field(default=1.2, description="Maximum ratio of the mean denoiser step latencies.")
    quality: Quality = Field(default=Quality(), description="Criteria of the image comparison.")


class Rollout(ApiModel):
    """Rollout of new revisions."""

    rules = (
        Rule(
            "!has(self.experiment) || has(self.traffic.gateway)",
            "an experiment needs a Gateway, since only one can tell users apart: add traffic.gateway",
            lambda self: self.experiment is None or self.traffic.gateway is not None,
            ".experiment",
        ),
        Rule(
            "!has(self.experiment) || self.strategy == 'RollingUpdate'",
            "an experiment keeps the shares that a canary would move: use strategy RollingUpdate meanwhile",
            lambda self: self.experiment is None or self.strategy == "RollingUpdate",
            ".strategy",
        ),
        Rule(
            "self.surge == 1 || self.strategy == 'RollingUpdate'",
            "a canary runs beside the stable revision, for which surge 0 may leave no room: use strategy RollingUpdate",
            lambda self: self.surge == 1 or self.strategy == "RollingUpdate",
            ".strategy",
        ),
        Rule(
            "self.surge == 1 || !has(self.experiment)",
            "variants run beside the stable revision, for which surge 0 may leave no room: use surge 1",
            lambda self: self.surge == 1 or self.experiment is None,
            ".surge",
        ),
        Rule(
            "!has(self.experiment) || !has(self.rollbackTo)",
            "variants are made of the spec, which rollbackTo leaves aside: end the experiment first",
            lambda self: self.experiment is None or self.rollback_to is None,
            ".rollbackTo",
        ),
    )

    surge: Annotated[int, Field(ge=0, le=1)] = Field(
        default=1,
        description="1: the stable revision keeps its pods until the new one serves. 0: when a compile Job or a new "
        "revision waits for a GPU in use, the stable revision is scaled to zero for it, and comes back when the build "
        "or the new revision fails. Needs strategy RollingUpdate.",
    )
    strategy: Literal["Canary", "RollingUpdate"] = Field(
        default="Canary",
        description="Canary: analyzed at each step and rejected when worse. RollingUpdate: all at once when ready.",
    )
    steps: Annotated[
        list[RolloutStep],
        Field(min_length=1, max_length=16),
        ATOMIC,
        Rule(
            "self.map(s, s.weight).isSorted() && self.all(s, self.exists_one(t, t.weight == s.weight))",
            "the weights of the steps must rise from each step to the next",
            lambda steps: all(step.weight < later.weight for step, later in pairwise(steps)),
        ),
    ] = Field(
        default=[RolloutStep(weight=10), RolloutStep(weight=50)],
        description="Steps of a canary before it gets all of the traffic.",
    )
    traffic: Traffic = Field(default=Traffic(), description="How traffic is split.")
    analysis: Analysis = Field(default=Analysis(), description="Criteria of the analysis.")
    progress_deadline: Duration = Field(
        default="10m", description="Maximum time for the pods of a canary to become ready; then the canary is rejected."
    )
    revision_history_limit: Annotated[int, Field(ge=0, le=10)] = Field(
        default=2, description="Earlier revisions of each target that are retained, without pods, for a rollback."
    )
    rollback_to: Annotated[str, Field(max_length=8, pattern=r"^[0-9a-f]{8}$")] | None = Field(
        default=None,
        description="Roll back to this revision of the history instead of serving the rest of the spec, without any "
        "build. The other targets roll back to their sibling revisions.",
    )
    experiment: Experiment | None = Field(
        default=None,
        description="Variants with fixed weights, beside the stable revision. Needs a Gateway "
        "and strategy RollingUpdate.",
    )
