"""One step of any scheduler that is a table: see docs/adr/0001."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from diffusion_builder.components.base import LATENT, Loaded
from diffusion_builder.contract import MAX_STEPS

if TYPE_CHECKING:
    from diffusion_builder.components.options import Precision
    from diffusion_builder.components.parts import Material


class SchedulerStep(nn.Module):
    """Look a step up in its sample's table and apply it; works for any number of state slots."""

    def forward(
        self,
        state: torch.Tensor,
        model_output: torch.Tensor,
        step_index: torch.Tensor,
        table: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """[B, S, C, h, w], [B, C, h, w], [B, 1], [B, 64, S+1, S+1], [B, 64] → what the next step reads."""
        row = step_index.to(torch.int64)
        following = torch.clamp(row + 1, max=MAX_STEPS - 1)
        matrix = torch.gather(table, 1, row[:, :, None, None].expand(-1, -1, table.shape[2], table.shape[3]))[:, 0]
        slots = torch.cat([state, model_output[:, None]], dim=1)
        mixed = torch.matmul(matrix, slots.flatten(2)).reshape(slots.shape)
        timestep = torch.gather(timesteps, 1, following)
        return mixed[:, :-1], mixed[:, -1], timestep, step_index + 1, mixed[:, 0]


def load(_material: Material, _precision: Precision) -> Loaded:
    """Always float32: the latent adds up over all steps, and the arithmetic is nothing beside the denoiser's."""
    return Loaded(SchedulerStep().eval(), {}, {"slots": 2, "channels": 3}, LATENT | {"slots", "channels", "columns"})
