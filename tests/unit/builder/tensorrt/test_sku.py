"""The GPU that a Job runs on is named as the node's label names it, and must be the one that was asked for."""

import pytest

from diffusion_builder.engines.tensorrt import sku
from diffusion_builder.errors import BadInputError, Reason, UnavailableError
from diffusion_contract.skus import product_label

L4 = "GPU 0: NVIDIA L4 (UUID: GPU-9196782c-2fae-91c7-c24f-e9a05e4369a7)\n"
A100 = "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-9196782c-2fae-91c7-c24f-e9a05e4369a7)\n"
MIG = A100 + "  MIG 1g.10gb     Device  0: (UUID: MIG-1)\n  MIG 2g.20gb     Device  1: (UUID: MIG-2)\n"


@pytest.mark.parametrize(
    ("name", "profile", "value"),
    [
        ("NVIDIA L4", "", "NVIDIA-L4"),
        ("NVIDIA A100-SXM4-80GB", "", "NVIDIA-A100-SXM4-80GB"),
        ("NVIDIA GeForce RTX 4090", "", "NVIDIA-GeForce-RTX-4090"),
        ("NVIDIA RTX 6000 Ada Generation", "", "NVIDIA-RTX-6000-Ada-Generation"),
        ("Quadro RTX 5000 with Max-Q  Design (R)", "", "Quadro-RTX-5000-with-Max-Q-Design-R"),
        ("NVIDIA A100-SXM4-80GB", "1g.10gb", "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"),
    ],
)
def test_labels_are_those_of_gpu_feature_discovery(name: str, profile: str, value: str) -> None:
    assert product_label(name, profile) == value


@pytest.mark.parametrize(
    ("listing", "skus"),
    [
        (L4, ("NVIDIA-L4",)),
        (L4 + L4.replace("GPU 0", "GPU 1"), ("NVIDIA-L4", "NVIDIA-L4")),
        (MIG, ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "NVIDIA-A100-SXM4-80GB-MIG-2g.20gb")),
        (MIG + L4.replace("GPU 0", "GPU 1"), (
            "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "NVIDIA-A100-SXM4-80GB-MIG-2g.20gb", "NVIDIA-L4",
        )),
        ("No devices found.\n", ()),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", ()),
        ("", ()),
    ],
)  # fmt: skip
def test_a_listing_names_what_can_be_used(listing: str, skus: tuple[str, ...]) -> None:
    assert sku.visible_skus(listing) == skus


@pytest.mark.parametrize(
    ("requested_sku", "listing"),
    [("NVIDIA-L4", L4), ("NVIDIA-L4-SHARED", L4), ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", MIG)],
)
def test_the_right_gpu_passes(requested_sku: str, listing: str) -> None:
    sku.require_gpu(requested_sku, listing)


@pytest.mark.parametrize(("requested_sku", "listing"), [("NVIDIA-L4", A100), ("NVIDIA-A100-SXM4-80GB", MIG)])
def test_another_gpu_is_never_tried_again(requested_sku: str, listing: str) -> None:
    with pytest.raises(BadInputError, match=f"to be compiled for {requested_sku}") as caught:
        sku.require_gpu(requested_sku, listing)
    assert caught.value.reason is Reason.WRONG_GPU


def test_no_gpu_is_tried_again() -> None:
    with pytest.raises(UnavailableError) as caught:
        sku.require_gpu("NVIDIA-L4", "No devices found.")
    assert caught.value.reason is Reason.NO_GPU


@pytest.mark.parametrize("target", ["cpu", "", "NVIDIA L4", "../../etc", "-L4", "x" * 64])
def test_a_target_that_is_no_label_is_rejected(target: str) -> None:
    with pytest.raises(BadInputError, match="NVIDIA-L4"):
        sku.validate_product(target)
