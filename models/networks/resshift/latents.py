"""Images [n, 3, h, w] in [-1, 1] <-> the latents a residual-shifting network works on, fixed while it is trained.

Two kinds: pixel-unshuffle, which needs no weights and loses nothing, and any diffusers autoencoder.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any, Final, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vq_model import VQModel
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.errors import ModelError
from rsup.models.base.settings import Config, first_problem
from rsup.models.networks.precision import full_precision
from rsup.models.networks.pretrained import fetch

UNSHUFFLE: Final = "unshuffle"
UNSHUFFLE_FACTOR = 4
"""That of the autoencoder of ResShift's paper: 48 channels at a quarter of the size."""

_CLASSES: dict[str, Any] = {"VQModel": VQModel, "AutoencoderTiny": AutoencoderTiny, "AutoencoderKL": AutoencoderKL}
_PLACES = ("vqvae/", "vae/", "")
_WIDEST, _DEEPEST, _LEVELS, _ENTRIES = 65_536, 16, 8, 64
"""The most of an autoencoder: a whole number of any kind, blocks a level, levels, and entries of any other list."""
_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


class LatentsConfig(Config):
    """Enough to build the module again; its weights, if any, lie in the same weights file as the network's."""

    kind: Literal["unshuffle", "VQModel", "AutoencoderTiny", "AutoencoderKL"] = UNSHUFFLE
    settings: dict[str, Any] = Field(default_factory=dict)
    """diffusers' settings of the autoencoder."""

    @model_validator(mode="after")
    def _says_its_size(self) -> LatentsConfig:
        if self.kind == UNSHUFFLE:
            return self
        for name, value in self.settings.items():
            _check_setting(name, value)
        widths = self._widths
        numbers = [self.settings.get("latent_channels"), self.settings.get("vq_embed_dim") or 1]
        numbers += widths if isinstance(widths, (list, tuple)) and widths else [None]
        if not all(isinstance(number, int) and number > 0 for number in numbers):
            raise ValueError(
                f"the settings of a {self.kind} must name its latent_channels and block_out_channels, whole numbers"
            )
        return self

    @property
    def _widths(self) -> Sequence[int]:
        return self.settings.get("block_out_channels") or self.settings.get("encoder_block_out_channels") or ()

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        if self.kind == UNSHUFFLE:
            return 3 * UNSHUFFLE_FACTOR**2
        return int(self.settings.get("vq_embed_dim") or self.settings["latent_channels"])

    @property
    def factor(self) -> int:
        """Pixels a side of one latent position."""
        return UNSHUFFLE_FACTOR if self.kind == UNSHUFFLE else int(2 ** (len(self._widths) - 1))


def _check_setting(name: str, value: Any) -> None:
    """Raise ValueError for what would build networks without end: numbers and lists come from files."""
    counts = "block" in name and "channels" not in name
    parts = value if isinstance(value, list | tuple) else [value]
    if len(parts) > (_LEVELS if "block" in name else _ENTRIES):
        raise ValueError(f"{name} has {len(parts)} entries: no autoencoder has as many")
    for part in parts:
        if isinstance(part, int) and abs(part) > (_DEEPEST if counts else _WIDEST):
            raise ValueError(f"{name} is beyond the {_DEEPEST if counts else _WIDEST} that an autoencoder may have")
        if part is not None and not isinstance(part, int | float | str):
            raise ValueError(f"{name} is neither a number nor a word nor a list of them")


class Latents(nn.Module):
    """`encode` [n, 3, h, w] -> [n, channels, h / factor, w / factor], and `decode` back; h, w multiples of the factor.

    Autoencoders stay in float32 under autocast, because a codebook's choice does not survive rounding. Gradients flow
    through both directions (past a codebook by the straight-through estimate); weights take none.
    Raises ModelError where the settings build no autoencoder.
    """

    def __init__(self, config: LatentsConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder: Any = None
        if config.kind != UNSHUFFLE:
            try:
                with torch.device("meta"):
                    self.autoencoder = self._built()
                    self._check_shapes()
                self.autoencoder = self._built()
            except Exception as error:  # whatever a library says of settings that do not fit each other
                reason = str(error).strip().split("\n")[0]
                raise ModelError(
                    f"these settings build no {config.kind} ({reason}): give another autoencoder"
                ) from error

    def _built(self) -> Any:
        return _CLASSES[self.config.kind](**self.config.settings).eval().requires_grad_(False)

    def _check_shapes(self) -> None:
        """Raise ValueError unless images become latents of the shape the settings say, and these images again."""
        image = torch.empty(1, 3, 8 * self.config.factor, 8 * self.config.factor)
        latent = self.encode(image)
        if latent.shape != (1, self.config.channels, 8, 8) or self.decode(latent).shape != image.shape:
            raise ValueError(f"its latents are {tuple(latent.shape[1:])} for images of {tuple(image.shape[1:])}")

    def encode(self, image: Tensor) -> Tensor:
        """A KL autoencoder's mean at unit variance; a codebook's latent before it is looked up."""
        if self.autoencoder is None:
            return F.pixel_unshuffle(image, UNSHUFFLE_FACTOR)
        with full_precision(image.device):
            encoded = self.autoencoder.encode(image.to(self.autoencoder.dtype))
            # The mean of a KL posterior, scaled to the unit variance diffusion expects; ResShift takes the others raw.
            raw: Tensor = encoded.latent_dist.mode() * self._scale if self._is_kl else encoded.latents
        return raw

    def decode(self, latent: Tensor) -> Tensor:
        """Not clamped. A codebook, where there is one, is looked up here and not in `encode`, as in ResShift."""
        if self.autoencoder is None:
            return F.pixel_shuffle(latent, UNSHUFFLE_FACTOR)
        with full_precision(latent.device):
            latent = latent.to(self.autoencoder.dtype)
            image: Tensor = self.autoencoder.decode(latent / self._scale if self._is_kl else latent).sample
        return image

    @property
    def _is_kl(self) -> bool:
        return self.config.kind == "AutoencoderKL"

    @property
    def _scale(self) -> float:
        return float(self.autoencoder.config["scaling_factor"])


def load_latents(source: str) -> Latents:
    """`unshuffle`, or the autoencoder of a hub id or folder, looked for in `vqvae`, `vae` and the folder itself.

    ResShift's own is the VQ autoencoder with 3 channels at a quarter of the size that
    `CompVis/ldm-super-resolution-4x-openimages` holds (Apache-2.0). Raises ModelError where it is missing or damaged.
    """
    if source == UNSHUFFLE:
        return Latents(LatentsConfig())
    names = ("config.json", *_FILES)
    folder = fetch(
        source, ["|".join(place + "config.json" for place in _PLACES)], [p + n for p in _PLACES for n in names]
    )
    place = next(folder / place for place in _PLACES if (folder / place / "config.json").is_file())
    try:
        settings = json.loads((place / "config.json").read_text())
        network, info = _CLASSES[settings["_class_name"]].from_pretrained(
            place,
            torch_dtype=torch.float32,
            # Asked for what is not there, diffusers logs an error before it reads the pickle (with weights_only=True).
            use_safetensors=(place / _FILES[0]).is_file(),
            output_loading_info=True,
        )
    except Exception as error:  # whatever a library says of a damaged or strange file
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"{source} holds no VQModel, AutoencoderTiny or AutoencoderKL that can be read ({reason}): "
            f'download it again, or set autoencoder = "{UNSHUFFLE}"'
        ) from error
    if info["missing_keys"]:
        raise ModelError(f"{source} lacks {info['missing_keys'][0]}: download it again")
    # What a class was given; its config also holds what it derived from that, and notes of its own.
    given = inspect.signature(type(network)).parameters
    kept = {name: value for name, value in network.config.items() if name in given}
    try:
        config = LatentsConfig(kind=settings["_class_name"], settings=json.loads(json.dumps(kept)))
    except ValidationError as error:
        raise ModelError(
            f"{source} is no autoencoder for latents ({first_problem(error)}): give another one"
        ) from error
    latents = Latents(config)
    latents.autoencoder.load_state_dict(network.state_dict())
    return latents
