"""What each image is made of, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_CONTRACT_CODE: Final = ("contract/diffusion_contract", "code/diffusion_contract")
BUILDER_CODE: Final = (_CONTRACT_CODE, ("builder/diffusion_builder", "code/diffusion_builder"))
OPERATOR_CODE: Final = (_CONTRACT_CODE, ("operator/diffusion_operator", "code/diffusion_operator"))
GATEWAY_CODE: Final = (_CONTRACT_CODE, ("gateway/diffusion_gateway", "code/diffusion_gateway"))

# Carries tritonserver 2.51 with the Python backend: the one real Triton outside NVIDIA's registry.
PYTRITON: Final = "nvidia-pytriton==0.7.0"
PYTRITON_SHA256: Final = "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df"

# The CUDA parts that an export on the CPU neither links nor opens.
UNUSED_BY_EXPORT: Final = ("nvidia-cusolver", "nvidia-nvtx")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One image.

    Attributes:
        name: Name of the image, and of its Containerfile's folder unless `folder` says otherwise.
        repository: Name in a registry.
        parent: Name of the recipe it stands on; empty for the first.
        parent_argument: Build argument that takes the parent's reference.
        folder: Folder below `tools/images/` that holds the Containerfile.
        target: Stage to stop at; empty for the last.
        extras: Extras of the lock file whose packages go in.
        without: Packages of those extras that stay out.
        files: (path in the repository, path in the build context); a folder stands for all its files.
        arguments: Further build arguments, `NAME=value`.
        server: Whether the tritonserver wheel goes into the context.
        published: Whether it is pushed; the others are steps towards those.
    """

    name: str
    repository: str
    parent: str = ""
    parent_argument: str = "BASE_IMAGE"
    folder: str = ""
    target: str = ""
    extras: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    server: bool = False
    published: bool = True

    @property
    def containerfile(self) -> str:
        """Path of the Containerfile in the repository."""
        return f"tools/images/{self.folder or self.name}/Containerfile"


_SERVER_FILES: Final = (
    ("tools/images/triton/unpack_triton.py", "unpack_triton.py"),
    ("tools/images/triton/tritonserver", "tritonserver"),
)

# The Containerfile's default once more: buildah 1.28 looks for the stage before it applies defaults.
_SERVER_ARGUMENTS: Final = ("SERVER=wheel",)

RECIPES: Final = (
    Recipe(name="base", repository="diffusion-base", published=False),
    Recipe(
        name="operator",
        repository="diffusion-operator",
        parent="base",
        extras=("operator",),
        files=(*OPERATOR_CODE, ("tools/images/operator/diffusion-operator", "diffusion-operator")),
    ),
    Recipe(
        name="gateway",
        repository="diffusion-gateway",
        parent="base",
        extras=("gateway",),
        files=(*GATEWAY_CODE, ("tools/images/gateway/diffusion-gateway", "diffusion-gateway")),
    ),
    Recipe(
        name="runtime",
        repository="diffusion-triton-runtime",
        parent="base",
        folder="triton",
        target="runtime",
        extras=("serving",),
        files=_SERVER_FILES,
        arguments=_SERVER_ARGUMENTS,
        server=True,
        published=False,
    ),
    Recipe(
        name="triton",
        repository="diffusion-triton",
        parent="base",
        extras=("serving",),
        files=(*_SERVER_FILES, *BUILDER_CODE),
        arguments=_SERVER_ARGUMENTS,
        server=True,
    ),
    Recipe(
        name="builder-runtime",
        repository="diffusion-builder-runtime",
        parent="runtime",
        parent_argument="RUNTIME_IMAGE",
        folder="builder",
        target="dependencies",
        extras=("builder",),
        without=UNUSED_BY_EXPORT,
        files=(("tools/images/builder/warm_up.py", "warm_up.py"),),
        published=False,
    ),
    Recipe(
        name="builder",
        repository="diffusion-builder",
        parent="runtime",
        parent_argument="RUNTIME_IMAGE",
        extras=("builder",),
        without=UNUSED_BY_EXPORT,
        files=(
            *BUILDER_CODE,
            ("tools/images/builder/diffusion-builder", "diffusion-builder"),
            ("tools/images/builder/warm_up.py", "warm_up.py"),
        ),
    ),
    Recipe(
        name="demo-hub",
        repository="diffusion-demo-hub",
        parent="base",
        files=(
            ("examples/demo_hub.py", "demo_hub.py"),
            ("examples/demo-checkpoint", "demo-checkpoint"),
            ("examples/demo-unets", "demo-unets"),
        ),
    ),
)

# What a cluster needs, and where the chart has it: `images.<name>`.
CHART_NAMES: Final = {"operator": "operator", "builder": "builder", "triton": "serving", "gateway": "gateway"}


def by_name(name: str) -> Recipe:
    """Return the recipe of that name; KeyError where there is none."""
    return {recipe.name: recipe for recipe in RECIPES}[name]


def layer_chain(recipe: Recipe) -> list[Recipe]:
    """Return the recipes that must be there first, in order, and the recipe itself."""
    chain = [recipe]
    while chain[0].parent:
        chain.insert(0, by_name(chain[0].parent))
    return chain
