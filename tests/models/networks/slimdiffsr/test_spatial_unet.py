"""The UNet with a map of timesteps against diffusers' own, and against its formulas in double precision."""

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from rsup.models.base.errors import ModelError
from rsup.models.networks.pretrained import StableDiffusion, load_stable_diffusion
from rsup.models.networks.slimdiffsr.spatial_unet import SpatialResidualBlock, SpatialUNet


@pytest.fixture(scope="module")
def base() -> StableDiffusion:
    return load_stable_diffusion("tiny-random", seed=3)


def prompt_of(base: StableDiffusion, n: int) -> Tensor:
    return base.prompt.expand(n, -1, -1)


def test_a_uniform_map_gives_the_stock_unet(base: StableDiffusion) -> None:
    latent = torch.randn(5, 4, 16, 24, generator=torch.Generator().manual_seed(0))
    steps = torch.tensor([0.0, 1.0, 200.0, 417.5, 999.0])
    with torch.no_grad():
        stock = base.unet(latent, steps, prompt_of(base, 5)).sample
        ours = SpatialUNet(base.unet)(latent, steps.view(5, 1, 1, 1).expand(5, 1, 16, 24), prompt_of(base, 5))
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-4)
    assert (stock[0] - stock[4]).abs().max() > 1e-3  # the timestep matters, so agreement means something


def test_a_block_adds_to_each_position_its_own_embedding() -> None:
    torch.manual_seed(0)
    block = ResnetBlock2D(in_channels=8, out_channels=16, temb_channels=12, groups=4, eps=1e-5).double()
    x, temb = torch.randn(2, 8, 3, 5).double(), torch.randn(2, 3, 5, 12).double()
    found = SpatialResidualBlock(block)(x, temb)

    def norm(x: Tensor, groups: int, name: str) -> Tensor:
        parts = x.reshape(len(x), groups, -1)
        parts = (parts - parts.mean(-1, keepdim=True)) / (parts.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        scale, shift = (block.get_parameter(f"{name}.{key}").view(1, -1, 1, 1) for key in ("weight", "bias"))
        return parts.view_as(x) * scale + shift

    y = norm(x, 4, "norm1")
    y = block.conv1(y * y.sigmoid())
    for i in range(3):
        for j in range(5):
            e = temb[:, i, j]
            y[:, :, i, j] += (e * e.sigmoid()) @ block.time_emb_proj.weight.T + block.time_emb_proj.bias
    y = norm(y, 4, "norm2")
    y = block.conv2(y * y.sigmoid()) + torch.einsum("nchw,oc->nohw", x, block.conv_shortcut.weight[:, :, 0, 0])
    torch.testing.assert_close(found, y + block.conv_shortcut.bias.view(1, -1, 1, 1), rtol=0, atol=1e-4)


def test_deeper_levels_see_the_mean_timestep_of_their_area(base: StableDiffusion) -> None:
    unet = SpatialUNet(base.unet)
    seen: dict[str, Tensor] = {}
    blocks = {f"down {i}": block for i, block in enumerate(unet.down_blocks)}
    blocks |= {"mid": unet.mid_block} | {f"up {i}": block for i, block in enumerate(unet.up_blocks)}
    for name, block in blocks.items():
        # The `temb` that the block was called with.
        block.register_forward_pre_hook(lambda _, __, k, name=name: seen.update({name: k["temb"]}), with_kwargs=True)
    timestep = torch.rand(2, 1, 16, 24) * 999
    with torch.no_grad():
        unet(torch.randn(2, 4, 16, 24), timestep, prompt_of(base, 2))
        sizes = {"down 0": 1, "down 1": 2, "down 2": 4, "down 3": 8, "mid": 8}
        sizes |= {"up 0": 8, "up 1": 4, "up 2": 2, "up 3": 1}
        assert seen.keys() == sizes.keys()
        for name, side in sizes.items():
            means = timestep.reshape(2, 16 // side, side, 24 // side, side).mean((2, 4))
            wanted = base.unet.time_embedding(base.unet.time_proj(means.flatten())).view(*means.shape, -1)
            # In float32 a timestep of some hundreds, which the fastest wave takes as radians, is known to 6e-5.
            torch.testing.assert_close(seen[name], wanted, rtol=0, atol=1e-4)


def test_hooks_on_the_blocks_see_what_they_give(base: StableDiffusion) -> None:
    unet = SpatialUNet(base.unet)
    shapes: list[tuple[int, ...]] = []

    def note(_: object, __: object, output: Tensor | tuple[Tensor, object]) -> None:
        shapes.append(tuple((output[0] if isinstance(output, tuple) else output).shape))

    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        block.register_forward_hook(note)
    with torch.no_grad():
        unet(torch.randn(1, 4, 8, 8), torch.full((1, 1, 8, 8), 7.0), prompt_of(base, 1))
    down = [(1, 16, 4, 4), (1, 32, 2, 2), (1, 64, 1, 1), (1, 64, 1, 1)]
    up = [(1, 64, 2, 2), (1, 64, 4, 4), (1, 32, 8, 8), (1, 16, 8, 8)]
    assert shapes == [*down, (1, 64, 1, 1), *up]


def test_gradients_reach_the_timesteps_of_all_positions(base: StableDiffusion) -> None:
    timestep = torch.full((1, 1, 8, 8), 300.0, requires_grad=True)
    SpatialUNet(base.unet)(torch.randn(1, 4, 8, 8), timestep, prompt_of(base, 1)).square().sum().backward()
    assert timestep.grad is not None and (timestep.grad != 0).all()


def test_the_stock_unet_stays_as_it_was_and_shares_its_tensors(base: StableDiffusion) -> None:
    unet = SpatialUNet(base.unet)
    assert isinstance(base.unet.down_blocks[0].resnets[0], ResnetBlock2D)
    theirs, ours = dict(base.unet.named_parameters()), dict(unet.named_parameters())
    assert theirs.keys() == ours.keys()
    assert all(theirs[name] is ours[name] for name in theirs)


@pytest.mark.parametrize(
    "stranger",
    [
        {"resnet_time_scale_shift": "scale_shift"},
        {"class_embed_type": "timestep"},
        {"addition_embed_type": "text"},
        {"center_input_sample": True},
    ],
)
def test_other_families_are_refused(stranger: dict[str, object]) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(16, 16, 64, 64),
            cross_attention_dim=64,
            attention_head_dim=2,
            norm_num_groups=8,
            **stranger,
        )
    with pytest.raises(ModelError, match=r"choose Stable Diffusion 2\.1"):
        SpatialUNet(unet)
