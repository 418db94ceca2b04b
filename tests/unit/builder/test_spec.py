"""A specification that cannot be served is rejected with the field's name."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from diffusion_builder.arguments import parse
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.assembly import AssembleSpec
from diffusion_contract.tensors import TEXT_TO_IMAGE

GOOD: dict[str, Any] = {
    "source": "a" * 64,
    "engines": dict.fromkeys(TEXT_TO_IMAGE, "b" * 64),
    "runtime": "onnxruntime",
    "controlNets": [{"name": "canny", "engine": "c" * 64}],
    "pipelines": [
        {"task": "generate", "steps": [4, 20], "previews": [2]},
        {"task": "generate", "steps": [20], "features": ["controlnet", "ip_adapter"]},
        {"task": "inpaint", "steps": [20]},
    ],
    "schedulers": [{"type": "DDIM"}, {"name": "karras", "type": "DPMSolverMultistep", "useKarrasSigmas": True}],
    "shapes": {
        "batch": {"min": 1, "opt": 4, "max": 8},
        "height": {"min": 64, "opt": 64, "max": 128},
        "width": {"min": 64, "opt": 64, "max": 128},
    },
    "batching": {"maxQueueDelayMicroseconds": 100, "preferredBatchSizes": [4, 8]},
}


def test_the_documented_form_is_read() -> None:
    spec = parse(AssembleSpec, json.dumps(GOOD), "--spec")
    assert spec.batching.max_queue_delay_microseconds == 100
    assert spec.pipelines[0].steps == (4, 20)
    assert [one.request_name for one in spec.schedulers] == ["ddim", "karras"]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (["source"], "x", "source"),
        (["engines", "denoiser"], None, "engines.denoiser"),
        (["engines"], {}, "missing"),
        (["engines", "dragon"], "b" * 64, "engines.dragon"),
        (["runtime"], "tensorflow", "runtime"),
        (["pipelines"], [], "pipelines"),
        (["pipelines", 0, "steps"], [], "steps"),
        (["pipelines", 0, "steps"], [0], "steps[0]"),
        (["pipelines", 0, "steps"], [65], "steps[0]"),
        (["pipelines", 0, "steps"], [4, 4], "pipelines[0].steps: 4 more than once"),
        (["pipelines", 0, "task"], "paint", "task"),
        (["pipelines", 1, "features"], ["controlnet", "controlnet"], "controlnet more than once"),
        (["pipelines", 1, "features"], ["magic"], "features[0]"),
        (["pipelines", 1, "features"], [], "pipelines: each task with the same features may be listed once"),
        (["pipelines", 0, "previews"], [20], "a preview must come before the last step"),
        (["pipelines", 0, "previews"], [0], "previews[0]"),
        (["schedulers"], [], "schedulers"),
        (["schedulers", 0, "type"], "Magic", "schedulers[0].type"),
        (["schedulers", 1, "name"], "ddim", "schedulers: each name may be listed once, got ddim, ddim"),
        (["schedulers", 1, "name"], "2m karras", "schedulers[1].name"),
        (["controlNets", 0, "name"], "Canny", "controlNets[0].name"),
        (["controlNets"], [{"name": "canny", "engine": "c" * 64}] * 2, "controlNets: each name may be listed once"),
        (["engines", "controlnet"], "c" * 64, "list ControlNets in controlNets"),
        (["scheduler"], {"type": "DDIM"}, "scheduler"),
        (["shapes", "batch"], {"min": 2, "opt": 1, "max": 8}, "shapes.batch: must be ordered: min <= opt <= max"),
        (["shapes", "height", "opt"], 65, "shapes.height.opt: must be a multiple of 8"),
        (["shapes", "width", "min"], 8, "greater than or equal to 32"),
        (["shapes", "depth"], {}, "shapes.depth"),
        (["batching", "preferredBatchSizes"], [16], "exceed shapes.batch.max 8"),
        (["batching", "maxQueueDelayMicroseconds"], -1, "maxQueueDelayMicroseconds"),
        (["extra"], 1, "extra"),
    ],
)
def test_a_bad_field_is_named(path: list[Any], value: object, says: str) -> None:
    body: Any = copy.deepcopy(GOOD)
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(BadInputError) as caught:
        parse(AssembleSpec, json.dumps(body), "--spec")
    assert says in caught.value.message
    assert caught.value.reason is Reason.INVALID_SPEC
