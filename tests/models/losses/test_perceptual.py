"""LPIPS with a made backbone, against a float64 computation from the published definition."""

from pathlib import Path

import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.models import alexnet, vgg16

from rsup.models.base.errors import ModelError
from rsup.models.losses.perceptual import LpipsKind, Perceptual, backbone_file, perceptual_term
from rsup.models.losses.terms import frequency

TAPS = {"lpips-alex": (1, 4, 7, 9, 11), "lpips-vgg": (3, 8, 15, 22, 29)}
"""The ReLUs LPIPS reads, by their place in torchvision's `features`."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


def made_backbone(kind: LpipsKind) -> nn.Sequential:
    """torchvision's layers with random numbers, also written where LPIPS looks for them."""
    with torch.device("meta"):
        features: nn.Sequential = (vgg16() if kind == "lpips-vgg" else alexnet()).features
    features.to_empty(device="cpu")
    torch.manual_seed(5)
    for tensor in features.parameters():
        nn.init.normal_(tensor, std=tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1)
    path = backbone_file(kind)
    path.parent.mkdir(parents=True)
    state = {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
    # The published files are in torch's old format.
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return features.double()


def by_definition(kind: LpipsKind, features: nn.Sequential, a: Tensor, b: Tensor) -> Tensor:
    """Zhang et al. 2018, Eq. 1: heads on squared differences of unit-length features, averaged over positions."""
    folder = Path(torchmetrics.__file__).parent / "functional/image/lpips_models"
    heads = torch.load(folder / f"{kind.removeprefix('lpips-')}.pth", map_location="cpu", weights_only=True)
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64)[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64)[:, None, None]
    x, y = ((image.double() - shift) / scale for image in (a, b))
    total = torch.zeros(len(a), dtype=torch.float64)
    for i, layer in enumerate(features):
        x, y = layer(x), layer(y)
        if i in TAPS[kind]:
            k = TAPS[kind].index(i)
            difference = (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square()
            total += F.conv2d(difference, heads[f"lin{k}.model.1.weight"].double()).mean((1, 2, 3))
    return total.mean()


@pytest.mark.parametrize("kind", ["lpips-alex", "lpips-vgg"])
def test_lpips_is_its_definition(kind: LpipsKind, home: Path) -> None:
    features = made_backbone(kind)
    generator = torch.Generator().manual_seed(1)
    # Beyond [-1, 1], as a network's raw output may be.
    a, b = (2.4 * torch.rand(2, 3, 64, 64, generator=generator) - 1.2 for _ in range(2))
    lpips = Perceptual(kind)
    with torch.no_grad():
        assert lpips(a, b).item() == pytest.approx(by_definition(kind, features, a, b).item(), rel=1e-3)
        assert lpips(a, a).item() == 0
        with torch.autocast("cpu", torch.bfloat16):
            exact = lpips(a, b)
        assert torch.equal(exact, lpips(a, b))


def test_lpips_trains_images_and_stays_as_it_is(home: Path) -> None:
    made_backbone("lpips-alex")
    lpips = Perceptual("lpips-alex")
    lpips.train()
    assert not any(module.training for module in lpips.network.modules())
    assert not any(tensor.requires_grad for tensor in lpips.parameters())
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    lpips(image, torch.zeros(1, 3, 64, 64)).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("kind", "name"), [("lpips-vgg", "vgg16-397923af.pth"), ("lpips-alex", "alexnet-owt-7be5be79.pth")]
)
def test_a_missing_backbone_is_named_with_its_folder(kind: LpipsKind, name: str, home: Path) -> None:
    with pytest.raises(ModelError) as failure:
        Perceptual(kind)
    text = str(failure.value)
    assert f"https://download.pytorch.org/models/{name}" in text
    assert str(home / "hub" / "checkpoints") in text


def test_damaged_and_other_backbones_are_told(home: Path) -> None:
    path = backbone_file("lpips-alex")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a download")
    with pytest.raises(ModelError, match="cannot be read: download https"):
        Perceptual("lpips-alex")
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="is not torchvision's alexnet"):
        Perceptual("lpips-alex")


def test_the_term_of_a_recipe(home: Path) -> None:
    assert perceptual_term("none") is None
    assert perceptual_term("frequency") is frequency
    made_backbone("lpips-alex")
    assert isinstance(perceptual_term("lpips-alex"), Perceptual)
