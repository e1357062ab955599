"""Made weights: every tensor is drawn by its published name, so two implementations can be given the same network."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from rsup.models.networks.compact import CompactConfig, CompactStudent
from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.published import import_published, published_layout
from rsup.models.weights_file import save_weights, student_header

Draw = Callable[..., dict[str, Tensor]]
SaveStudent = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny() -> StudentConfig:
    """The student's layout at a hundredth of its width."""
    return StudentConfig(channels=(16, 32), deep_channels=64, queries=4, squeeze=8, groups=8, autoencoder_channels=8)


def draw_state(layout: Mapping[str, tuple[int, ...]], salt: str = "rsup-parity-a/") -> dict[str, Tensor]:
    """Small biases, norm weights around 1, and the rest scaled by its fan-in, by name and salt."""
    state = {}
    for name, shape in layout.items():
        seed = int.from_bytes(hashlib.sha256((salt + name).encode()).digest()[:8], "little")
        r = np.random.Generator(np.random.Philox(seed)).standard_normal(shape).astype("float32")
        if name.endswith(".bias"):
            r *= np.float32(0.02)
        elif len(shape) == 1:
            r = 1 + np.float32(0.1) * r
        else:
            r /= np.float32(np.sqrt(np.prod(shape[1:])))
        state[name] = torch.from_numpy(r)
    return state


@pytest.fixture(scope="session")
def draw() -> Draw:
    """`draw(layout, salt)`: a state dict in the published layout."""
    return draw_state


@pytest.fixture(scope="session")
def sure_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a balanced compact student of x4 that says how far it may be off: four bands, 24 px tiles."""
    sizes = {"channels": (8,), "deep_channels": 8, "blocks": 1, "shuffled": 8}
    config = CompactConfig(scale=4, bands=4, local=True, balance=0.8, uncertainty=True, **sizes)
    torch.manual_seed(4)
    student = CompactStudent(config)
    state = {name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in student.state_dict().items()}
    # The map shall differ from place to place, by numbers of which float32 knows a half: graphs are compared by it.
    state["doubt.last.weight"] = 0.5 * torch.randn_like(state["doubt.last.weight"])
    bands = ("red", "green", "blue", "nir")
    tiles = {"tile": 24, "halo": 2, "overlap": 4}
    header = student_header(config, 4, bands=bands, licence="Apache-2.0", source="random numbers", **tiles)
    path = tmp_path_factory.mktemp("sure") / "sure.safetensors"
    save_weights(path, state, header)
    return path


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory, tiny: StudentConfig) -> Path:
    """A folder with a pickle of a tiny student for each scale, and the weights files a user makes of them."""
    folder = tmp_path_factory.mktemp("imported")
    state = draw_state(published_layout(tiny))
    for scale in (4, 8):
        pickle = folder / f"net_params_{scale}x.pkl"
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, pickle)
        import_published(pickle, scale, folder / f"tiny-x{scale}.safetensors", tiny)
    return folder


@pytest.fixture
def save_student(tmp_path: Path, imported: Path) -> SaveStudent:
    """`save_student(scale, folder=tmp_path)`: a weights file of a tiny student of the test's own, beside its pickle."""

    def save(scale: int, folder: Path = tmp_path) -> Path:
        copy(imported / f"net_params_{scale}x.pkl", tmp_path)
        return Path(copy(imported / f"tiny-x{scale}.safetensors", folder))

    return save
