"""One step of any scheduler that is a table: see docs/adr/0001."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from diffusion_builder.components.base import LATENT, LoadedModule
from diffusion_contract.tensors import MAX_STEPS

if TYPE_CHECKING:
    from diffusion_builder.components.parts import LoadContext
    from diffusion_contract.enums import Precision


class SchedulerStep(nn.Module):
    """Look a step up in its sample's table and apply it; works for any number of state slots."""

    def forward(  # noqa: PLR0913, PLR0917 - a graph's inputs
        self,
        state: torch.Tensor,
        model_output: torch.Tensor,
        noise: torch.Tensor,
        step_index: torch.Tensor,
        table: torch.Tensor,
        levels: torch.Tensor,
        image_latent_and_noise: torch.Tensor,
        latent_mask: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """What the next step reads, the latent, and a preview of the image.

        Shapes: [B, S, C, h, w], [B, C, h, w], [B, C, h, w], [B, 1], [B, 64, S+1, S+2], [B, 64, 4], [B, 2, C, h, w],
        [B, 1, h, w].
        """
        row = step_index.to(torch.int64)
        matrix = torch.gather(table, 1, row[:, :, None, None].expand(-1, -1, table.shape[2], table.shape[3]))[:, 0]
        columns = torch.cat([state, model_output[:, None], noise[:, None]], dim=1)
        # As many rows as columns but one.
        mixed = torch.matmul(matrix, columns.flatten(2)).reshape(columns[:, 1:].shape)
        factors = _gather(levels, row)[:, 2:, None, None, None]
        latent = _blend(latent_mask, mixed[:, 0], (factors * image_latent_and_noise).sum(dim=1))
        next_call = _gather(levels, torch.clamp(row + 1, max=MAX_STEPS - 1))
        return (
            torch.cat([latent[:, None], mixed[:, 1:]], dim=1)[:, :-1],
            latent * next_call[:, 1, None, None, None],
            next_call[:, :1],
            step_index + 1,
            latent,
            _blend(latent_mask, mixed[:, -1], image_latent_and_noise[:, 0]),
        )


def _gather(levels: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """[B, 64, 4], [B, 1] → [B, 4]."""
    return torch.gather(levels, 1, row[:, :, None].expand(-1, -1, levels.shape[2]))[:, 0]


def _blend(mask: torch.Tensor, repainted: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    return (1 - mask) * original + mask * repainted


def load(_material: LoadContext, _precision: Precision) -> LoadedModule:
    """Always float32: the latent adds up over all steps, and the arithmetic is nothing beside the denoiser's."""
    dynamic = LATENT | {"slots", "channels", "table_rows", "table_columns"}
    return LoadedModule(SchedulerStep().eval(), {}, {"slots": 2, "channels": 3}, dynamic)
