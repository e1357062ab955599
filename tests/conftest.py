"""What every test shares: scenes to work on, the command line as a user runs it, and the skip of GPU tests."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from forks import Forks, Rsup
from numpy.typing import NDArray
from places import SHARED
from scenes import write_scene

from rsup.pipeline.lattice import Window
from rsup.pipeline.scenes.scene import Scene

# For commands and workers too: small networks, whose threads would wait for each other, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["buckets", "months", "students"]

WriteScene = Callable[..., Scene]


FORKS = "RSUP_TEST_FORKS"
"""Names the server of a session of several processes, which start with a copy of the environment."""


def pytest_configure(config: pytest.Config) -> None:
    """Start forks.py once for all processes of a session, before they are started."""
    if config.getoption("numprocesses", None) and FORKS not in os.environ:
        forks = Forks.start()
        os.environ[FORKS] = forks.address
        config.add_cleanup(forks.close)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where torch sees no CUDA device."""
    import torch

    torch.set_num_threads(1)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def make_scene(tmp_path: Path) -> WriteScene:
    """`make_scene(dn [band, y, x], name="scene", bands=..., corner=(row, col), aoi=None)` -> an open Scene."""

    def make(
        dn: NDArray[np.uint16],
        name: str = "scene",
        bands: Sequence[str] = ("red", "green", "blue"),
        corner: tuple[int, int] = (-568_628, 65_536),
        aoi: Window | None = None,
    ) -> Scene:
        return write_scene(tmp_path / f"{name}.zarr", dn, bands, Window(*corner, *dn.shape[1:]), "EPSG:32631", aoi)

    return make


def made_numbers(height: int, width: int, bands: int = 3) -> NDArray[np.uint16]:
    """Fields, hills and noise in stored numbers, with a nodata edge; every seed of structure differs by band."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    planes = [
        2300 + 500 * np.sin(x / 17 + k) * np.cos(y / 23) + 900 * ((x // 19 + y // 31) % 2) + rng.normal(0, 80, x.shape)
        for k in range(bands)
    ]
    dn = np.clip(np.rint(planes), 1, 65535).astype(np.uint16)
    dn[:, y + 2 * x < height // 3] = 0
    return dn


@pytest.fixture(scope="session")
def real_scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Mol, Belgium, at 10 m (red, green, blue, nir), where the imagery is at hand; a made scene where it is not."""
    import rasterio

    path = tmp_path_factory.mktemp("scenes") / "mol.zarr"
    bands = ("red", "green", "blue", "nir")
    folder = SHARED / "data/sentinel2/mol_L1C_10m"
    if not folder.exists():
        return write_scene(path, made_numbers(1024, 512, 4), bands, Window(-568_628, 65_536, 1024, 512), "EPSG:32631")
    planes = []
    for number in ("B04", "B03", "B02", "B08"):
        with rasterio.open(folder / f"ref_input_S2_{number}.tif") as source:
            planes.append(source.read(1))
    dn = np.stack(planes)
    # The product is older than baseline 04.00: its numbers lack the 1000 that stored numbers carry.
    dn = np.where((dn == 65535) | (dn == 0), 0, dn + 1000).astype(np.uint16)
    return write_scene(path, dn, bands, Window(-568_628, 65_536, *dn.shape[1:]), "EPSG:32631")


@pytest.fixture(scope="session")
def training_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 PNG images of 96 x 96 pixels with waves, fields and noise; 3 are for validation by their names."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("learning") / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96]
    for k in range(30):
        across, down = rng.uniform(0.05, 0.9, 2)
        fields = 60 * ((x // (5 + k % 9) + y // (7 + k % 5)) % 2)
        planes = [128 + 50 * np.sin(across * x + down * y + c) + fields + rng.normal(0, 4, x.shape) for c in range(3)]
        Image.fromarray(np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)).save(folder / f"image-{k}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """`tiny_student(scale)` -> weights of a small student with random numbers: the paper's operators, 256 px tiles."""
    import torch

    from rsup.models.networks.slimdiffsr.config import StudentConfig
    from rsup.models.networks.slimdiffsr.student import Student
    from rsup.models.weights_file import save_weights, student_header

    folder = tmp_path_factory.mktemp("weights")

    def make(scale: int) -> Path:
        path = folder / f"tiny-x{scale}.safetensors"
        if not path.exists():
            config = StudentConfig(
                channels=(16, 16), deep_channels=16, groups=8, queries=4, squeeze=8, autoencoder_channels=8
            )
            torch.manual_seed(scale)
            sizes = {"tile": 256 // scale, "halo": 16 // scale, "overlap": 32 // scale}
            header = student_header(config, scale, licence="Apache-2.0", source="random numbers", **sizes)
            save_weights(path, Student(config).state_dict(), header)
        return path

    return make


@pytest.fixture
def quick_student(tmp_path: Path) -> Path:
    """Weights of a compact student of x4 that even emulated 16-bit types run through in no time: 24 px tiles."""
    import torch

    from rsup.models.networks.compact import CompactConfig, CompactStudent
    from rsup.models.weights_file import save_weights, student_header

    config = CompactConfig(scale=4, channels=(8,), deep_channels=8, blocks=1, queries=2, squeeze=8, shuffled=8)
    torch.manual_seed(4)
    # A new network's last layer is nothing yet: bicubic interpolation, whatever it computes in.
    state = {
        name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in CompactStudent(config).state_dict().items()
    }
    sizes = {"tile": 24, "halo": 2, "overlap": 4}
    header = student_header(config, 4, licence="Apache-2.0", source="random numbers", **sizes)
    save_weights(tmp_path / "quick.safetensors", state, header)
    return tmp_path / "quick.safetensors"


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Where commands and workers are forked from."""
    forks = Forks(os.environ[FORKS]) if FORKS in os.environ else Forks.start()
    yield forks
    forks.close()


@pytest.fixture(scope="session", autouse=True)
def _workers(request: pytest.FixtureRequest) -> None:
    """Clusters of this process fork their workers as well, where there are enough tests for that to pay."""
    if FORKS in os.environ:
        request.getfixturevalue("forks").lend_workers()


@pytest.fixture(scope="session")
def rsup(forks: Forks) -> Rsup:
    """`rsup("upscale", scene, "--scale", 8)`: the command in a process of its own, but for its imports (forks.py)."""

    def run(*arguments: object, timeout: float = 240) -> "subprocess.CompletedProcess[str]":
        return forks.begin(arguments).end(timeout)

    return run
