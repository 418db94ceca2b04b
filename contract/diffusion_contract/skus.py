"""What an engine is compiled for: a GPU product with its MIG profile, or the CPU; standard library only.

The rule is GPU feature discovery's for the node label `nvidia.com/gpu.product`: characters that a label cannot hold are
dropped, blanks become hyphens, and a MIG slice adds `-MIG-<profile>`.
"""

import re

CPU = "cpu"
GPU_RESOURCE = "nvidia.com/gpu"
PRODUCT_LABEL = "nvidia.com/gpu.product"
MIG_RESOURCE = "nvidia.com/mig-"
LABEL_VALUE = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
LABEL_VALUE_PATTERN = rf"^{LABEL_VALUE}$"
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*"

_MIG = "-MIG-"
_DROPPED = re.compile(r"[^A-Za-z0-9-_. ]")


def sku(product: str, resource: str = GPU_RESOURCE) -> str:
    """What is compiled for on nodes of a GPU product.

    Args:
        product: value of the node label.
        resource: of the device plugin; `nvidia.com/mig-<profile>` is a slice on nodes of the mixed strategy, whose
            label names the whole GPU.
    """
    if resource.startswith(MIG_RESOURCE) and _MIG not in product:
        return f"{product}{_MIG}{resource.removeprefix(MIG_RESOURCE)}"
    return product


def product_label(name: str, mig_profile: str = "") -> str:
    """The node label's value for a product name as nvidia-smi prints it, and the MIG profile of a slice."""
    words = [name, "MIG", mig_profile] if mig_profile else [name]
    return "-".join("-".join(_DROPPED.sub("", word).split()) for word in words)
