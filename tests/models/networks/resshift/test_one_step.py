"""The one-step network for use: what tiles share, what a file gives back, and what it starts as."""

from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rsup.models.base.errors import ModelError
from rsup.models.losses.rsd import one_step_student
from rsup.models.networks.resshift.denoiser import DenoiserConfig
from rsup.models.networks.resshift.latents import LatentsConfig, load_latents
from rsup.models.networks.resshift.network import ResShift, ResShiftConfig
from rsup.models.networks.resshift.one_step import RsdStudent, RsdStudentConfig, assemble
from rsup.models.show import student_counts
from rsup.models.weights_file import load_student, save_weights, student_header

TINY = ResShiftConfig(denoiser=DenoiserConfig(channels=(8, 16), blocks=1, head_channels=8, groups=4))


def image(height: int = 64, width: int = 48, n: int = 2) -> Tensor:
    return 2 * torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0)) - 1


def trained(channels: int = 48) -> ResShift:
    torch.manual_seed(1)
    teacher = ResShift(TINY, channels)
    nn.init.normal_(teacher.denoiser.unet.conv_out.weight, std=0.1)
    student = one_step_student(teacher)
    nn.init.normal_(student.denoiser.unet.conv_in.weight[:, -1:], std=0.1)
    return student


class Noise(nn.Module):
    """Stands in for the network: gives the noise it was given, so that outputs show where it came from."""

    def __init__(self, network: ResShift) -> None:
        super().__init__()
        self.schedule = network.schedule

    def forward(self, start: Tensor, z_y: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        assert t.tolist() == [14] * len(start)
        return (start - z_y) / (2 * 0.99) + noise


def test_one_step_from_the_noisy_end_of_the_chain() -> None:
    network = trained()
    student, x = assemble(network, load_latents("unshuffle"), stride=48), image()
    noise = student.noise.repeat(1, 2, 1)[:, :16, :12].expand(2, -1, -1, -1)
    z_y = nn.functional.pixel_unshuffle(x, 4)
    with torch.no_grad():
        z = network(z_y + 2 * 0.99 * noise[:, :48], z_y, torch.tensor([14, 14]), noise[:, 48:])
        torch.testing.assert_close(student(x), nn.functional.pixel_shuffle(z, 4), rtol=0, atol=1e-4)
        # One image does not depend on the others of its batch, nor one call on the one before.
        torch.testing.assert_close(student(x[1:]), student(x)[1:], rtol=0, atol=1e-4)
        assert torch.equal(student(x), student(x))


def test_tiles_a_stride_apart_see_the_same_noise_on_shared_ground() -> None:
    student = assemble(trained(), load_latents("unshuffle"), stride=48)
    student.network = Noise(student.network)  # type: ignore[assignment]
    with torch.no_grad():
        # Two overlapping tiles of 64, whose starts are 48 pixels apart each way.
        first, second = student(torch.zeros(1, 3, 64, 64)), student(torch.zeros(1, 3, 64, 64))
    assert torch.equal(first[..., 48:, 48:], second[..., :16, :16])
    assert not torch.equal(first[..., 40:56, :16], second[..., :16, :16])


def test_noise_is_standard_normal_drawn_from_its_seed() -> None:
    network, latents = trained(), load_latents("unshuffle")
    student = assemble(network, latents)
    assert student.noise.shape == (49, 108, 108)
    assert student.noise.mean().abs() < 0.01 and abs(student.noise.std() - 1) < 0.01
    assert torch.equal(student.noise, assemble(network, latents).noise)
    assert not torch.equal(student.noise, assemble(network, latents, seed=1).noise)


@pytest.mark.parametrize("codebook", [False, True])
def test_a_file_gives_it_back_without_any_other(codebook: bool, tmp_path: Path) -> None:
    source = "unshuffle"
    if codebook:
        torch.manual_seed(3)
        down, up = ("DownEncoderBlock2D",) * 3, ("UpDecoderBlock2D",) * 3
        widths = {"block_out_channels": (8, 8, 16), "norm_num_groups": 4, "num_vq_embeddings": 16}
        VQModel(down_block_types=down, up_block_types=up, **widths).save_pretrained(tmp_path / "vqvae")
        source = str(tmp_path)
    latents = load_latents(source)
    student = assemble(trained(latents.config.channels), latents, stride=48)
    save_file(student.state_dict(), tmp_path / "student.safetensors")
    config = RsdStudentConfig.model_validate_json(student.config.model_dump_json())
    assert config == student.config and config.multiple == 8
    with torch.device("meta"):
        again = RsdStudent(config)
    again.load_state_dict(load_file(tmp_path / "student.safetensors"), assign=True)
    with torch.no_grad():
        torch.testing.assert_close(again(image()), student(image()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [4, 8])
def test_its_noise_meets_the_tiles_that_its_header_says(scale: int, tmp_path: Path) -> None:
    """Neighbours start where the noise begins again; a file whose tiles do not is refused."""
    latents = load_latents("unshuffle")
    student = assemble(one_step_student(ResShift(TINY, 48)), latents)
    header = student_header(student.config, scale, licence="Apache-2.0", source="made")
    assert header.stride * scale == student.config.period * latents.config.factor
    path = tmp_path / "w.safetensors"
    save_weights(path, student.state_dict(), header)
    load_student(path)
    wider = header.model_copy(update={"overlap": header.overlap + 8 // scale})
    save_weights(path, student.state_dict(), wider)
    with pytest.raises(ModelError, match="tiles start 424 output pixels apart and its noise repeats after 432"):
        load_student(path)


def test_an_untrained_one_returns_the_image() -> None:
    latents = load_latents("unshuffle")
    student = assemble(one_step_student(ResShift(TINY, 48)), latents)
    assert torch.equal(student(image()), image())


def test_sizes_and_strides_that_do_not_fit_are_told() -> None:
    student = assemble(trained(), load_latents("unshuffle"))
    with pytest.raises(ValueError, match="multiples of 8 pixels"):
        student(image(60, 48))
    with pytest.raises(ModelError, match="tiles 430 pixels apart"):
        assemble(trained(), load_latents("unshuffle"), stride=430)


@pytest.mark.parametrize("codebook", [False, True])
def test_its_cost_is_counted_without_its_weights(codebook: bool) -> None:
    """Against the network itself, with attention in the open, where PyTorch counts it on every device."""
    latents = LatentsConfig()
    if codebook:
        settings = {"latent_channels": 3, "block_out_channels": [8, 8, 8], "norm_num_groups": 8}
        sides = {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
        latents = LatentsConfig(kind="VQModel", settings=settings | sides | {"mid_block_add_attention": False})
    student = RsdStudent(RsdStudentConfig(resshift=TINY, latents=latents))
    counts = student_counts(student.config)
    assert counts["parameters"] == counts["parameters_as_published"] == sum(p.numel() for p in student.parameters())
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        student(image(512, 512, 1))
    assert counts["gmac_512"] == pytest.approx(counter.get_total_flops() / 2e9, abs=0.001)
