"""Exports a small graph: proof that the image can, and byte code for the next start."""  # noqa: INP001 - a script

import tempfile
from pathlib import Path

import onnx
import onnxruntime
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer


class Block(torch.nn.Module):
    """The operators that a denoiser is made of, once each."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(4, 8, 3, padding=1)
        self.norm = torch.nn.GroupNorm(4, 8)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """Map [B, 4, h, w] to [B, h*w, 8]."""
        hidden = self.norm(self.convolution(sample)).flatten(2).transpose(1, 2)
        attended: torch.Tensor = self.attention(hidden, hidden, hidden, need_weights=False)[0]
        return attended


def main() -> None:
    """Export, check and run the block; raise where one of the three does not work."""
    needed = (AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel, CLIPTextModel, CLIPTokenizer)
    sample = torch.zeros(1, 4, 8, 8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block.onnx"
        torch.onnx.export(Block().eval(), (sample,), str(path), dynamo=False)
        onnx.checker.check_model(str(path))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (answer,) = session.run(None, {session.get_inputs()[0].name: sample.numpy()})
    if answer.shape != (1, 64, 8):
        raise SystemExit(f"the exported block answered {answer.shape}; {len(needed)} classes were imported")


if __name__ == "__main__":
    main()
