"""The published checkpoint: its layout, its import, its forward pass, and pickles that are none of it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from places import SHARED

from rsup.models.base.errors import ModelError
from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.published import dead_shapes, import_published, published_layout
from rsup.models.show import show_model
from rsup.models.weights_file import load_student, read_header

PARITY = SHARED / "parity"
needs_parity = pytest.mark.skipif(not PARITY.exists(), reason="the published forward pass is not at hand")


@needs_parity
def test_layout_is_the_published_one():
    published = json.loads((PARITY / "official_state_dict_keys.json").read_text())
    assert {name: tuple(shape) for name, shape in published.items()} == published_layout(StudentConfig())


@needs_parity
def test_published_forward_pass(tmp_path, draw):
    """A checkpoint as the authors pickle theirs, through the import, gives their output."""
    state = draw(published_layout(StudentConfig()))
    pickle, out = tmp_path / "net_params_4x.pkl", tmp_path / "student.safetensors"
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, pickle)
    del state
    written = import_published(pickle, 4, out)
    pickle.unlink()
    assert written["parameters"] == 55_974_802
    shown = show_model(str(out))
    assert (shown["parameters"], shown["parameters_as_published"]) == (55_974_802, 58_053_402)
    assert shown["gmac_512"] == pytest.approx(226.7, abs=0.05)
    assert shown["sha256"] == written["sha256"]

    student = load_student(out).eval()
    latent = []
    student.fuse_out.register_forward_hook(lambda module, args, result: latent.append(result))
    with np.load(PARITY / "slimdiffsr_student.npz") as arrays, torch.inference_mode():
        output = student(torch.from_numpy(arrays["input"])).numpy()
        np.testing.assert_allclose(output, arrays["output"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(latent[0].numpy(), arrays["latent"], rtol=1e-3, atol=1e-3)


def test_import_keeps_live_tensors_exactly(tmp_path, tiny, draw):
    state = draw(published_layout(tiny))
    pickle, out = tmp_path / "net_params_8x.pkl", tmp_path / "student.safetensors"
    for prefix in ("module.", ""):
        torch.save({prefix + name: tensor for name, tensor in state.items()}, pickle)
        written = import_published(pickle, 8, out, tiny)
        ours = load_student(out).state_dict()
        assert torch.equal(ours["fuse_in.weight"], state["merge_conv1.weight"])
        assert torch.equal(ours["decoder.18.bias"], state["vae.decoder.layers.18.bias"])
        assert torch.equal(ours["unet.mid_block.norm1.weight"], state["unet.mid_block.mid_block.norm1.weight"])
        assert len(ours) == len(state) - len(dead_shapes(tiny)) == len(state) - len(written["dropped"])
        out.unlink()


def test_header_of_an_import(save_student):
    header, _ = read_header(save_student(4))
    assert (header.scale, header.tile, header.halo, header.overlap, header.multiple) == (4, 128, 4, 12, 16)
    assert "net_params_4x.pkl" in header.source
    assert "OpenRAIL++" in header.licence
    assert "Apache-2.0" in header.licence


class Touch:
    """Pickles as a call of os.mkdir: a pickle reader that runs code would make the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path, tiny, draw, zipped):
    trap, pickle, out = tmp_path / "trap", tmp_path / "evil.pkl", tmp_path / "out.safetensors"
    content = {**draw(published_layout(tiny)), "module.extra": Touch(trap)}
    torch.save(content, pickle, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="code inside a pickle is never run") as error:
        import_published(pickle, 4, out, tiny)
    assert "\n" not in str(error.value)
    assert not trap.exists()
    assert not out.exists()
    # The trap is real: a reader that trusts the file falls into it.
    torch.load(pickle, weights_only=False)
    assert trap.exists()


def test_files_that_are_no_published_student(tmp_path, tiny, draw):
    state = draw(published_layout(tiny))
    pickle, out = tmp_path / "net.pkl", tmp_path / "out.safetensors"

    def check(content, says):
        if isinstance(content, bytes):
            pickle.write_bytes(content)
        else:
            torch.save(content, pickle)
        with pytest.raises(ModelError, match=says):
            import_published(pickle, 4, out, tiny)
        assert not out.exists()

    torch.save(state, pickle)
    whole = pickle.read_bytes()
    for damaged in (b"", b"no pickle", b"<html>", whole[:10], whole[: len(whole) // 2], whole[:-30]):
        check(damaged, "not a plain pickled state dict, or is damaged")
    check([1, 2], "other things than named arrays of floats")
    check({"state_dict": state}, "other things than named arrays of floats")
    check({k: v for k, v in state.items() if k != "merge_conv1.bias"}, "lacks merge_conv1.bias")
    check({k: v for k, v in state.items() if "time_embedding" not in k}, "lacks unet.time_embedding.*3 more tensors")
    check(state | {"unet.extra": torch.zeros(2)}, "holds unet.extra")
    check(state | {"merge_conv1.bias": torch.zeros(2)}, "merge_conv1.bias has the shape")
    check(state | {"merge_conv1.bias": torch.full((16,), torch.nan)}, "not finite")
    for odd in (torch.zeros(16, dtype=torch.int64), torch.zeros(16).to_sparse(), torch.zeros(16, device="meta")):
        check(state | {"merge_conv1.bias": odd}, "other things than named arrays of floats")


def test_arguments_that_make_no_sense(tmp_path, tiny, save_student):
    weights = save_student(4)
    before = weights.read_bytes()
    with pytest.raises(ModelError, match="exists already"):
        import_published(tmp_path / "net_params_4x.pkl", 4, weights, tiny)
    assert weights.read_bytes() == before
    with pytest.raises(ModelError, match="scale must be 4 or 8"):
        import_published(tmp_path / "net_params_4x.pkl", 2, tmp_path / "o.safetensors", tiny)
    with pytest.raises(ModelError, match="is not a file"):
        import_published(tmp_path / "absent.pkl", 4, tmp_path / "o.safetensors", tiny)
    with pytest.raises(ModelError, match="cannot be written"):
        import_published(tmp_path / "net_params_4x.pkl", 4, tmp_path / "absent" / "o.safetensors", tiny)
