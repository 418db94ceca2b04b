"""How a new revision gets the traffic."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from diffusion_contract.base import ATOMIC, ApiModel, Duration, ObjectName, Rule
from diffusion_contract.spec.experiment import Experiment

Weight = Annotated[int, Field(ge=1, le=99)]
Ratio = Annotated[float, Field(ge=1, le=100)]
HeaderText = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
Hostname = Annotated[str, Field(min_length=1, max_length=253)]


class RolloutStep(ApiModel):
    """A share of the traffic, held until it has been judged."""

    weight: Weight = Field(description="Share of the requests that the canary gets, percent.")
    pause: Duration = Field(default="2m", description="How long the share is held at least, such as 60s or 10m.")


class GatewayRef(ApiModel):
    """A Gateway (Gateway API v1) that the routes attach to."""

    name: ObjectName = Field(description="Name of the Gateway.")
    namespace: ObjectName | None = Field(default=None, description="Its namespace; the pipeline's when not given.")
    section_name: ObjectName | None = Field(default=None, description="Listener of the Gateway; all when not given.")
    hostnames: Annotated[list[Hostname], Field(max_length=16), ATOMIC] | None = Field(
        default=None, description="Host names of the routes; those of the listener when not given."
    )


class HeaderMatch(ApiModel):
    """Requests with this header go to the canary, whatever its weight is."""

    name: HeaderText = Field(default="x-diffusion-revision", description="Name of the header.")
    value: HeaderText = Field(default="canary", description="Value of the header.")


class Traffic(ApiModel):
    """Who splits the requests; without a Gateway the number of pods does."""

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
        description="Gateway whose HTTPRoute and GRPCRoute split the requests by weight. Without it the share is that "
        "of the pods: with n stable pods the canary gets at least 1/(n+1) and at most half.",
    )
    header: HeaderMatch = Field(
        default=HeaderMatch(), description="For testers, with a Gateway: requests with this header go to the canary."
    )
    mirror_percent: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None,
        description="With a Gateway: percent of the requests that the canary gets a copy of, from its first pod on; "
        "its answers to them are thrown away.",
    )


class GoldenPrompt(ApiModel):
    """A picture that both revisions draw."""

    prompt: Annotated[str, Field(min_length=1, max_length=1024)] = Field(description="What is drawn.")
    seed: Annotated[int, Field(ge=0, le=4294967295)] = Field(default=0, description="Of the noise, the same for both.")
    steps: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Step count; the largest that is served when not given."
    )


class Scorer(ApiModel):
    """A program of yours that judges the pictures.

    Its last argument is a folder with `stable/N.png`, `canary/N.png` and `prompts.json`; it writes `score.json` there,
    {"passed": true, "message": "..."}, and ends with exit code 0.
    """

    image: Annotated[str, Field(min_length=1, max_length=512)] = Field(description="Image of the program.")
    command: (
        Annotated[list[Annotated[str, Field(max_length=1024)]], Field(min_length=1, max_length=32), ATOMIC] | None
    ) = Field(default=None, description="Program and arguments; those of the image when not given.")


class Quality(ApiModel):
    """What the canary's pictures have to be like, compared with those of the stable revision."""

    prompts: Annotated[list[GoldenPrompt], Field(min_length=1, max_length=8), ATOMIC] | None = Field(
        default=None, description="What both revisions draw; built-in prompts when not given."
    )
    min_psnr: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None,
        alias="minPSNR",
        description="Least likeness of each pair of pictures, dB. Only where the change should not be seen.",
    )
    min_ssim: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None,
        alias="minSSIM",
        description="Least structural similarity of each pair. Only where the change should not be seen.",
    )
    max_color_shift: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.25,
        description="How far the sorted values of a colour channel may be from the stable ones on average; 1 is "
        "black against white.",
    )
    scorer: Scorer | None = Field(default=None, description="A program of yours that judges the pictures, too.")


class Analysis(ApiModel):
    """When a canary is good enough, compared with the stable revision at the same time."""

    interval: Duration = Field(default="30s", description="How often the servers' metrics are read.")
    deadline: Duration = Field(
        default="10m",
        description="How long a step may stay without a verdict after its pause; then the canary is taken back.",
    )
    min_requests: Annotated[int, Field(ge=1, le=1000000)] = Field(
        default=20, description="Requests that each side must have answered in a step before it is judged."
    )
    max_error_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01, description="By how much the canary's share of failed requests may exceed the stable one's."
    )
    max_p95_ratio: Ratio = Field(
        default=1.2, alias="maxP95Ratio", description="Largest ratio of the 95th percentiles of the latency."
    )
    max_step_latency_ratio: Ratio = Field(
        default=1.2, description="Largest ratio of the denoiser's mean time for one step."
    )
    quality: Quality = Field(default=Quality(), description="What the pictures have to be like.")


class Rollout(ApiModel):
    """How a new revision gets the traffic."""

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
            "!has(self.experiment) || !has(self.rollbackTo)",
            "variants are made of the spec, which rollbackTo leaves aside: end the experiment first",
            lambda self: self.experiment is None or self.rollback_to is None,
            ".rollbackTo",
        ),
    )

    strategy: Literal["Canary", "RollingUpdate"] = Field(
        default="Canary",
        description="Canary: step by step, judged, and taken back when worse. RollingUpdate: all at once when ready.",
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
        description="Of a canary: shares of the traffic before it gets all of it.",
    )
    traffic: Traffic = Field(default=Traffic(), description="Who splits the requests.")
    analysis: Analysis = Field(default=Analysis(), description="When a canary is good enough.")
    progress_deadline: Duration = Field(
        default="10m", description="How long the pods of a canary may take to become ready; then it is taken back."
    )
    revision_history_limit: Annotated[int, Field(ge=0, le=10)] = Field(
        default=2, description="Earlier revisions of each target that are kept, without pods, to go back to."
    )
    rollback_to: Annotated[str, Field(max_length=8, pattern=r"^[0-9a-f]{8}$")] | None = Field(
        default=None,
        description="Serve this kept revision again instead of what the rest of the spec asks for, without any build. "
        "The other targets go back to what they served together with it.",
    )
    experiment: Experiment | None = Field(
        default=None,
        description="Variants at fixed shares of the requests, side by side with the stable revision. Needs a Gateway "
        "and strategy RollingUpdate.",
    )
