"""Stable Diffusion's UNet with a timestep for every position: latent and map of timesteps in, prediction out.

A residual block adds the projected time embedding to its feature map. The stock block adds one vector to all positions;
here each position gets its own, which is the same arithmetic: a uniform map gives the stock UNet's result.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.errors import ModelError

if TYPE_CHECKING:
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

_Module = TypeVar("_Module", bound=nn.Module)


class SpatialResidualBlock(nn.Module):
    """diffusers' residual block, its layers taken over under their names: x [n, c, h, w] -> [n, out, h, w]."""

    def __init__(self, block: ResnetBlock2D) -> None:
        super().__init__()
        if block.time_embedding_norm != "default" or block.up or block.down or block.skip_time_act:
            raise ModelError("the base's residual blocks are not Stable Diffusion's: choose Stable Diffusion 2.1")
        self.norm1 = block.norm1
        self.conv1 = block.conv1
        self.time_emb_proj = block.time_emb_proj
        self.norm2 = block.norm2
        self.nonlinearity = block.nonlinearity
        self.dropout = block.dropout
        self.conv2 = block.conv2
        self.conv_shortcut = block.conv_shortcut
        self.output_scale_factor = block.output_scale_factor

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        """`temb`: time embedding of each position, [n, h, w, e], channels last as a linear layer wants them."""
        y: Tensor = self.conv1(self.nonlinearity(self.norm1(x)))
        y = y + self.time_emb_proj(self.nonlinearity(temb)).permute(0, 3, 1, 2)
        y = self.conv2(self.dropout(self.nonlinearity(self.norm2(y))))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return (x + y) / self.output_scale_factor


class SpatialUNet(nn.Module):
    """A diffusers UNet, conditioned on a map of timesteps; submodules and tensors have diffusers' names.

    The parameters are shared with `unet`, which itself stays as it is. `down_blocks`, `mid_block` and `up_blocks` are
    called as modules, so forward hooks on them see what they give. Raises ModelError for another family of UNets.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        extras = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_embedding_act_fn")
        if any(unet.config.get(name) for name in extras) or unet.config.get("center_input_sample"):
            raise ModelError("the base's UNet wants more than latent, timestep and prompt: choose Stable Diffusion 2.1")
        self.config = unet.config
        own: Any = sharing_copy(unet)
        self.skips = len(own.up_blocks[0].resnets)
        """Maps of the way down that each block on the way up is given."""
        self.conv_in = own.conv_in
        self.time_proj = own.time_proj
        self.time_embedding = own.time_embedding
        self.down_blocks = own.down_blocks
        self.mid_block = own.mid_block
        self.up_blocks = own.up_blocks
        self.conv_norm_out = own.conv_norm_out
        self.conv_act = own.conv_act
        self.conv_out = own.conv_out
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            block.resnets = nn.ModuleList(SpatialResidualBlock(resnet) for resnet in block.resnets)

    @property
    def multiple(self) -> int:
        """Sides of a latent must be multiples of this many positions."""
        return int(2 ** (len(self.down_blocks) - 1))

    def forward(self, latent: Tensor, timestep: Tensor, prompt: Tensor) -> Tensor:
        """latent [n, c, h, w], timestep [n, 1, h, w] as diffusers counts (0..999, fractions allowed), prompt [n, l, e].

        Deeper levels see the map averaged over the area of each of their positions. The timesteps are averaged, not
        their embeddings: the mean of two embeddings is the embedding of no timestep.
        """
        embeddings: dict[tuple[int, int], Tensor] = {}

        def run(block: Any, x: Tensor, **more: Any) -> Any:
            size = (x.shape[-2], x.shape[-1])
            if size not in embeddings:
                embeddings[size] = self._embed(F.adaptive_avg_pool2d(timestep, size), x.dtype)
            if getattr(block, "has_cross_attention", False):
                more["encoder_hidden_states"] = prompt
            return block(hidden_states=x, temb=embeddings[size], **more)

        x: Tensor = self.conv_in(latent)
        skips = [x]
        for block in self.down_blocks:
            x, states = run(block, x)
            skips += states
        x = run(self.mid_block, x)
        for block in self.up_blocks:
            x = run(block, x, res_hidden_states_tuple=tuple(skips[-self.skips :]))
            del skips[-self.skips :]
        out: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return out

    def _embed(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """[n, 1, h, w] -> [n, h, w, e]."""
        n, _, h, w = timestep.shape
        waves = self.time_proj(timestep.flatten()).to(dtype)
        embedded: Tensor = self.time_embedding(waves)
        return embedded.view(n, h, w, -1)


def sharing_copy(module: _Module) -> _Module:
    """A copy whose modules are new and whose tensors are the original's: surgery on it costs no memory."""
    kept = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in kept})
