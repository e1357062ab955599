"""Published networks of others that `table.py` measures: a folder of their weights in, callables on images out.

None is part of rsup; the weights are read as their authors gave them out. RLFN and CARN-M were trained on photographs
shrunk bicubically, x4; CARN-light on Sentinel-2, x2.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.radiometry import ADD_OFFSET, SCALE_FACTOR, WHITE, from_network, to_network
from rsup.models.evaluate import Enlarge
from rsup.models.metrics.judge import Radiometry
from rsup.models.networks.architectures import parameters
from rsup.models.networks.interpolation import interpolator

BANDS = ("blue", "green", "red", "nir")
"""CARN-light's first channels; six more follow (B05, B06, B07, B8A, B11, B12), all as reflectance * 10000."""
CARN_LIGHT_PARAMETERS = 523_594
"""Counted in its file: onnxruntime does not show them."""


@dataclass(frozen=True)
class Baseline:
    """A network at one scale."""

    name: str
    parameters: int
    enlarge: Enlarge
    """[1, 4, y, x] -> [1, 4, y * scale, x * scale] of red, green, blue and nir, with 1 at white (reflectance WHITE)."""

    def seen(self, radiometry: Radiometry) -> Enlarge:
        """The same between images in the range of rsup's networks; what is brighter than white is cut off."""

        def enlarge(low: Tensor) -> Tensor:
            with torch.inference_mode():
                if radiometry == "photograph":
                    return 2 * self.enlarge((low + 1) / 2) - 1
                reflectance = from_network(low) * SCALE_FACTOR + ADD_OFFSET
                found = self.enlarge((reflectance / WHITE).clamp(0, 1))
                return to_network((found * WHITE - ADD_OFFSET) / SCALE_FACTOR)

        return enlarge


def baselines(folder: Path, scale: int) -> tuple[list[Baseline], list[str]]:
    """What can run at `scale` of rlfn_x4.pth, carn_m.pth and carn_light.onnx, and a sentence for each that cannot."""
    found: list[Baseline] = []
    lacking: list[str] = []
    networks: dict[str, tuple[str, type[nn.Module]]] = {"RLFN": ("rlfn_x4.pth", Rlfn), "CARN-M": ("carn_m.pth", CarnM)}
    for name, (file, kind) in networks.items() if scale == 4 else ():
        network = kind().eval()
        try:
            network.load_state_dict(torch.load(folder / file, "cpu", weights_only=True))
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            lacking.append(f"{name} is left out: {folder / file} cannot be read ({str(error).splitlines()[0]})")
            continue
        found.append(Baseline(name, parameters(network), _in_colour(network)))
    try:
        light = CarnLight(folder / "carn_light.onnx")
    except (ImportError, OSError, RuntimeError) as error:
        lacking.append(f"CARN-light is left out: {str(error).splitlines()[0]}")
        return found, lacking
    if scale == 4:
        bicubic = interpolator("bicubic", 2)
        once = Baseline("CARN-light, bicubic x2", CARN_LIGHT_PARAMETERS, lambda image: bicubic(light(image, 1)))
        found.append(once)
    times = {4: 2, 8: 3}[scale]
    name = {2: "CARN-light twice", 3: "CARN-light three times"}[times]
    found.append(Baseline(name, CARN_LIGHT_PARAMETERS, lambda image: light(image, times)))
    return found, lacking


def _in_colour(network: Enlarge) -> Enlarge:
    """A network of red, green and blue on four bands: near infrared in the place of red, red and green behind it."""
    return lambda image: torch.cat([network(image[:, :3]), network(image[:, [3, 0, 1]])[:, :1]], 1)


class CarnLight:
    """The Sentinel-2 network of the Evoland project, x2, in onnxruntime on one thread.

    It wants ten bands and the images have four. The others are filled with the mean of red, which serves it better
    than copies of red do (0.4 dB at x2). Made for more than it is given, it may do better than its row says.
    """

    places = [BANDS.index(band) for band in ("red", "green", "blue", "nir")]

    def __init__(self, file: Path) -> None:
        """Raises ImportError without onnxruntime, OSError or RuntimeError for a file that it cannot read."""
        import onnxruntime

        file.open("rb").close()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session: Any = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def __call__(self, image: Tensor, times: int) -> Tensor:
        """Brightness [1, 4, y, x] -> [1, 4, y * 2 ** times, x * 2 ** times]; all ten bands go from pass to pass."""
        dn = image.numpy() * (WHITE * 1e4)
        ten = np.full((1, 10, *dn.shape[2:]), dn[:, 0].mean(), np.float32)
        ten[:, self.places] = dn
        for _ in range(times):
            (ten,) = self.session.run(None, {"input": ten})
        return torch.from_numpy(ten[:, self.places] / np.float32(WHITE * 1e4))


class Attention(nn.Module):
    """ESA of RLFN: where to look, from features of 16 channels at about a sixth of the size."""

    def __init__(self, channels: int, inner: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1)
        self.conv_f = nn.Conv2d(inner, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=2)
        self.conv3 = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv4 = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(x)
        wide = self.conv3(F.max_pool2d(self.conv2(narrow), 7, stride=3))
        wide = F.interpolate(wide, x.shape[-2:], mode="bilinear")
        return x * torch.sigmoid(self.conv4(wide + self.conv_f(narrow)))


class LocalFeatures(nn.Module):
    """RLFB: three convolutions inside one skip, then ESA. Kong et al. 2022, figure 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c1_r, self.c2_r, self.c3_r = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.c5 = nn.Conv2d(channels, channels, 1)
        self.esa = Attention(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        for convolution in (self.c1_r, self.c2_r, self.c3_r):
            inner = F.leaky_relu(convolution(inner), 0.05)
        found: Tensor = self.esa(self.c5(x + inner))
        return found


class Rlfn(nn.Module):
    """Residual local feature network, x4 (Kong et al. 2022): images in [0, 1]; its weights were learned on 0..255."""

    BLOCKS = 6

    def __init__(self, channels: int = 52) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(3, channels, 3, padding=1)
        for k in range(self.BLOCKS):
            self.add_module(f"block_{k + 1}", LocalFeatures(channels))
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsampler = nn.Sequential(nn.Conv2d(channels, 3 * 16, 3, padding=1), nn.PixelShuffle(4))

    def forward(self, image: Tensor) -> Tensor:
        first = self.conv_1(image * 255)
        x = first
        for k in range(self.BLOCKS):
            x = self.get_submodule(f"block_{k + 1}")(x)
        found: Tensor = self.upsampler(first + self.conv_2(x)) / 255
        return found


class _Shift(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shifter = nn.Conv2d(3, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.shifter(image)
        return found


class _Body(nn.Module):
    """Layers under the name `body`, with an optional skip before the last ReLU."""

    def __init__(self, *layers: nn.Module, skip: bool = False) -> None:
        super().__init__()
        self.body, self.skip = nn.Sequential(*layers), skip

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return F.relu(found + x) if self.skip else found


class Cascade(nn.Module):
    """Three blocks b, each result joined to all earlier ones by 1 x 1 convolutions c. Ahn et al. 2018, figure 3."""

    def __init__(self, channels: int, blocks: Sequence[tuple[str, nn.Module]]) -> None:
        super().__init__()
        for name, block in blocks:
            self.add_module(name, block)
        # A block named once is the same one, with the same weights, in all three places.
        self.order = [name for name, _ in blocks] * (3 // len(blocks))
        for k in range(3):
            joint = _Body(nn.Conv2d(channels * (k + 2), channels, 1), nn.ReLU())
            self.add_module(f"c{k + 1}", joint)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for k, name in enumerate(self.order):
            found.append(self.get_submodule(name)(x))
            x = self.get_submodule(f"c{k + 1}")(torch.cat(found, 1))
        return x


class CarnM(Cascade):
    """Cascading residual network, mobile (Ahn et al. 2018), of three scales, of which x4 is used; images in [0, 1].

    A cascade of cascades. Its 3 x 3 convolutions but the outermost are in four groups, and the blocks inside a cascade
    share their weights.
    """

    def __init__(self, channels: int = 64, groups: int = 4) -> None:
        def grouped(factor: int) -> nn.Conv2d:
            return nn.Conv2d(channels, channels * factor**2, 3, padding=1, groups=groups)

        def block() -> nn.Module:
            point = nn.Conv2d(channels, channels, 1)
            return _Body(grouped(1), nn.ReLU(), grouped(1), nn.ReLU(), point, skip=True)

        def larger(factor: int) -> list[nn.Module]:
            return [grouped(factor), nn.ReLU(), nn.PixelShuffle(factor)]

        super().__init__(channels, [(f"b{k + 1}", Cascade(channels, [("b1", block())])) for k in range(3)])
        self.sub_mean, self.add_mean = _Shift(), _Shift()
        self.entry = nn.Conv2d(3, channels, 3, padding=1)
        self.upsample = nn.ModuleDict(
            {"up2": _Body(*larger(2)), "up3": _Body(*larger(3)), "up4": _Body(*larger(2), *larger(2))}
        )
        self.exit = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = super().forward(self.entry(self.sub_mean(image)))
        found: Tensor = self.add_mean(self.exit(self.upsample["up4"](x)))
        return found
