"""The teacher against the base it is made of, and what one step of its training touches."""

from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rsup.models.base.errors import ModelError
from rsup.models.networks.pretrained import StableDiffusion, load_stable_diffusion
from rsup.models.networks.slimdiffsr.noise_level import PredictorConfig
from rsup.models.networks.slimdiffsr.teacher import Teacher, TeacherConfig

SMALL = TeacherConfig(unet_rank=4, decoder_rank=2)


@pytest.fixture
def base() -> StableDiffusion:
    return load_stable_diffusion("tiny-random", seed=1)


def images(n: int = 1, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def wake(teacher: Teacher) -> None:
    """Adapters and predictor that do something, as after training."""
    torch.manual_seed(7)
    for name, parameter in teacher.named_parameters():
        if "lora_B" in name or name == "predictor.head.weight":
            nn.init.normal_(parameter, std=0.05)


@pytest.fixture(scope="module")
def trained() -> Teacher:
    """One that does something; not to be changed."""
    teacher = Teacher(load_stable_diffusion("tiny-random", seed=1), SMALL)
    wake(teacher)
    return teacher


@pytest.mark.parametrize("step", [1, 321, 1000])
def test_a_fresh_teacher_is_one_step_of_the_base(base: StableDiffusion, step: int) -> None:
    image = images(2, 64, 128)
    output = Teacher(base, TeacherConfig(fixed_timestep=step))(image)
    with torch.no_grad():
        latent = base.vae.encode(image).latent_dist.mean * 0.18215
        noise = base.unet(latent, step - 1, base.prompt.expand(2, -1, -1)).sample
        # diffusers' own step back to the clean latent, without its clipping.
        scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
        clean = scheduler.step(noise, step - 1, latent).pred_original_sample
        restored = base.vae.decode(clean / 0.18215).sample
    # The last step divides by 0.07 what float32 rounds.
    torch.testing.assert_close(output.latent, clean, rtol=0, atol=1e-3)
    torch.testing.assert_close(output.image, restored, rtol=0, atol=1e-3)
    assert output.timestep.shape == output.alpha_bar.shape == (2, 1, 8, 16)
    torch.testing.assert_close(output.timestep, torch.full((2, 1, 8, 16), float(step)), rtol=0, atol=1e-2)
    assert (output.alpha_bar == base.alphas_cumprod[step - 1]).all()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_one_step_undoes_the_forward_process(trained: Teacher, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "prediction_type", kind)
    clean, noise = torch.randn(2, 2, 4, 8, 8)
    alpha_bar = torch.rand(2, 1, 8, 8) * 0.9 + 0.05
    noisy = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise  # equation 6
    velocity = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
    found = trained.one_step(noisy, noise if kind == "epsilon" else velocity, alpha_bar)
    torch.testing.assert_close(found, clean, rtol=0, atol=1e-5)


def test_the_timestep_is_a_map_that_the_truth_informs(base: StableDiffusion) -> None:
    teacher = Teacher(base, SMALL)
    uniform = teacher(images()).timestep
    torch.testing.assert_close(uniform, torch.full_like(uniform, 200.0), rtol=0, atol=0.1)
    wake(teacher)
    alone, informed = teacher(images()), teacher(images(), images(seed=1))
    assert alone.timestep.std() > 0.1
    assert not torch.equal(alone.timestep, informed.timestep)
    # Without the truth the estimator's mean stands for it; a fresh estimator's mean is the latent itself.
    torch.testing.assert_close(teacher(images(), images()).image, alone.image)
    levels, steps = [1.0, *base.alphas_cumprod.tolist()], torch.arange(1001.0)
    below = torch.searchsorted(-torch.tensor(levels), -informed.alpha_bar.detach())  # alpha-bar falls with the step
    assert ((informed.timestep <= steps[below]) & (informed.timestep >= steps[below - 1])).all()


def test_without_uncertainty_input_the_estimator_only_stands_in_for_the_truth(base: StableDiffusion) -> None:
    teacher = Teacher(
        base, TeacherConfig(unet_rank=4, decoder_rank=2, predictor=PredictorConfig(uncertainty_input=False))
    )
    wake(teacher)
    assert teacher.estimator is not None and teacher.estimator.variance_head.bias is not None
    before = teacher(images(), images(seed=1)).timestep
    nn.init.constant_(teacher.estimator.variance_head.bias, 3.0)
    torch.testing.assert_close(teacher(images(), images(seed=1)).timestep, before, rtol=0, atol=0)


def test_a_fixed_timestep_needs_neither_estimator_nor_predictor(base: StableDiffusion) -> None:
    teacher = Teacher(base, TeacherConfig(unet_rank=4, decoder_rank=2, fixed_timestep=999))
    assert teacher.estimator is None and teacher.predictor is None
    assert all(".lora_" in name for name in teacher.state_to_save())
    assert teacher(images(), images(seed=1)).timestep.unique().numel() == 1


def test_training_moves_adapters_and_predictor_and_nothing_else(base: StableDiffusion) -> None:
    torch.manual_seed(0)
    teacher = Teacher(base, SMALL)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    theirs = {name: tensor.clone() for part in (base.unet, base.vae) for name, tensor in part.state_dict().items()}
    # Two positions at the deepest level: with a single one, attention has nothing to choose and queries no gradient.
    image, truth = images(1, 64, 128), images(1, 64, 128, seed=1) * 0.5
    optimizer = torch.optim.Adam(teacher.trainable_parameters(), lr=5e-3)
    losses = []
    for _ in range(8):
        output = teacher(image, truth)
        loss = (output.image - truth).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    moved = {name for name, tensor in teacher.state_dict().items() if not torch.equal(tensor, before[name])}
    trained = {name for name, parameter in teacher.named_parameters() if parameter.requires_grad}
    assert moved == trained
    assert all(".lora_" in name or name.startswith("predictor.") for name in trained)
    after = {name: tensor for part in (base.unet, base.vae) for name, tensor in part.state_dict().items()}
    assert after.keys() == theirs.keys() and all(torch.equal(after[name], theirs[name]) for name in theirs)


def test_the_reconstruction_alone_reaches_every_trained_weight(base: StableDiffusion) -> None:
    teacher = Teacher(base, SMALL)
    wake(teacher)
    image, truth = images(1, 64, 128), images(1, 64, 128, seed=1)
    (teacher(image, truth).image - truth).abs().mean().backward()
    for name, parameter in teacher.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
        else:
            assert parameter.grad is None, name


def test_its_own_tensors_are_saved_and_loaded(base: StableDiffusion, tmp_path: Path) -> None:
    teacher = Teacher(base, SMALL)
    wake(teacher)
    save_file(teacher.state_to_save(), tmp_path / "teacher.safetensors")
    state = load_file(tmp_path / "teacher.safetensors")
    other = Teacher(load_stable_diffusion("tiny-random", seed=1), SMALL)
    other.load(state)
    with torch.no_grad():
        torch.testing.assert_close(other(images()).image, teacher(images()).image, rtol=0, atol=0)
    assert {name for name, p in other.named_parameters() if p.requires_grad} == {
        name for name, p in teacher.named_parameters() if p.requires_grad
    }
    with pytest.raises(ModelError, match="another predictor.head.bias: use the settings it was trained with"):
        teacher.load(state | {"predictor.head.bias": torch.zeros(5)})
    with pytest.raises(ModelError, match="has estimator.more"):
        teacher.load(state | {"estimator.more": torch.zeros(1)})
    with pytest.raises(ModelError, match="lacks predictor.head.bias"):
        teacher.load({name: tensor for name, tensor in state.items() if name != "predictor.head.bias"})


def test_restoring_is_all_but_decoding(trained: Teacher) -> None:
    decoded: list[object] = []
    with trained.vae.decoder.register_forward_hook(lambda *_: decoded.append(1)), torch.no_grad():
        parts = trained.restore(images(), images(seed=1))
        assert not decoded
        whole = trained(images(), images(seed=1))
        assert all(torch.equal(one, other) for one, other in zip(parts, whole[1:], strict=True))
        torch.testing.assert_close(whole.image, trained.decode(parts[0]), rtol=0, atol=0)


def test_half_precision_does_not_round_the_timestep(trained: Teacher) -> None:
    with torch.no_grad():
        exact = trained(images())
        with torch.autocast("cpu", torch.bfloat16):
            rounded = trained(images())
    assert {tensor.dtype for tensor in rounded} == {torch.float32}
    # bfloat16 has 8 bits: rounding alpha-bar itself would move these timesteps by 2 or 3.
    assert (rounded.timestep - exact.timestep).abs().mean() < 1
    assert (rounded.image - exact.image).abs().mean() < 0.05


def test_sizes_that_do_not_divide_are_refused(trained: Teacher) -> None:
    assert (trained.reduction, trained.multiple) == (8, 64)
    with pytest.raises(ValueError, match="multiples of 64"):
        trained(images(1, 64, 96))


def test_adapters_at_full_size() -> None:
    """Ranks 32 and 16 on every linear layer and convolution of UNet and decoder, but the first one and time's."""
    with torch.device("meta"):
        base = StableDiffusion(
            unet=UNet2DConditionModel(
                block_out_channels=(320, 640, 1280, 1280),
                attention_head_dim=(5, 10, 20, 20),
                cross_attention_dim=1024,
                use_linear_projection=True,
            ),
            vae=AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                latent_channels=4,
            ),
            alphas_cumprod=torch.linspace(0.99, 0.01, 1000, device="cpu"),
            prompt=torch.empty(1, 77, 1024),
            prediction_type="epsilon",
        )

    def adapters(network: nn.Module, rank: int, left_out: tuple[str, ...]) -> int:
        count = 0
        for name, layer in network.named_modules():
            if not isinstance(layer, nn.Conv2d | nn.Linear) or any(part in name for part in left_out):
                continue
            out, into, *kernel = layer.weight.shape
            count += rank * (into * (kernel[0] * kernel[1] if kernel else 1) + out)
        return count

    unet = adapters(base.unet, 32, ("conv_in", "time_emb"))
    decoder = adapters(base.vae.decoder, 16, ("conv_in",))
    with torch.device("meta"):
        teacher = Teacher(base, TeacherConfig())
    found = {
        part: sum(p.numel() for name, p in teacher.named_parameters() if ".lora_" in name and name.startswith(part))
        for part in ("unet.", "vae.")
    }
    assert found == {"unet.": unet, "vae.": decoder}
    assert all(p.requires_grad == (".lora_" in n or n.startswith("predictor.")) for n, p in teacher.named_parameters())
