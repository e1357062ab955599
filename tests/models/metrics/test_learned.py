"""DISTS against torchmetrics' own network, CLIP-IQA against transformers' own logits, and what is said of absences."""

import json
import math

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import dists as torchmetrics_dists
from torchvision.models import alexnet, vgg16
from transformers import CLIPConfig, CLIPModel

from rsup.models.base.errors import ModelError
from rsup.models.losses.perceptual import backbone_file
from rsup.models.metrics import learned as learned_metrics
from rsup.models.metrics.learned import ClipIqa, Dists, learned_measures


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No weights but those a test makes."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def made_backbone(kind):
    """torchvision's convolutions with random numbers, where torchvision keeps the trained ones."""
    with torch.device("meta"):
        network = (vgg16() if kind == "lpips-vgg" else alexnet()).features
    network.to_empty(device="cpu")
    torch.manual_seed(5)
    for tensor in network.parameters():
        nn.init.normal_(tensor, std=1.4 * tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1)
    path = backbone_file(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"features.{name}": tensor for name, tensor in network.state_dict().items()}, path)
    return network


def images(n=2, side=40, seed=0):
    return torch.rand(2, n, 3, side, side, generator=torch.manual_seed(seed))


def test_dists_equals_torchmetrics(monkeypatch):
    network = made_backbone("lpips-vgg")
    ours = Dists()
    # Theirs would download; the layers they wrap are handed to them instead.
    wrapper = nn.Module()
    wrapper.features = network
    monkeypatch.setattr(torchmetrics_dists, "vgg16", lambda weights: wrapper)
    image, truth = images()
    with torch.no_grad():
        found, expected = ours(image, truth), torchmetrics_dists.DISTSNetwork()(image, truth)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        assert (found > 0.01).all()
        torch.testing.assert_close(ours(image, image), torch.zeros(2), rtol=0, atol=2e-6)


def save_clip(folder):
    """A small CLIP with a vocabulary of letters, in the layout of the hub."""
    letters = "abdghopt."
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    last = len(words) - 1
    config = CLIPConfig(
        text_config={**size, "vocab_size": len(words), "eos_token_id": last, "bos_token_id": last - 1},
        vision_config={**size, "image_size": 16, "patch_size": 8},
        projection_dim=8,
        logit_scale_init_value=math.log(100),
    )
    torch.manual_seed(3)
    model = CLIPModel(config)
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return model.eval()


def test_clip_iqa_is_the_softmax_of_clips_logits(home):
    from transformers import CLIPTokenizer

    folder = home / "clip"
    model = save_clip(folder)
    image = images(3, 16)[0]  # the network's own size: nothing is resampled
    tokens = CLIPTokenizer.from_pretrained(folder)(["Good photo.", "Bad photo."], padding=True, return_tensors="pt")
    mean, deviation = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    pixels = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1)
    with torch.no_grad():
        logits = model(pixel_values=pixels, **tokens).logits_per_image
        found = ClipIqa(str(folder))(image)
    odds = logits[:, 0] - logits[:, 1]
    assert odds.std() > 0.1
    torch.testing.assert_close(found.logit(), odds, rtol=1e-3, atol=1e-3)


def test_absent_weights_are_sentences(monkeypatch):
    monkeypatch.setattr(learned_metrics, "CLIP", "nobody/has-this")
    measures, notes = learned_measures(torch.device("cpu"))
    assert measures == {}
    assert set(notes) == {"lpips", "dists", "musiq", "maniqa", "clip_iqa"}
    checkpoints = str(backbone_file("lpips-vgg").parent)
    assert "alexnet-owt-7be5be79.pth" in notes["lpips"] and checkpoints in notes["lpips"]
    assert "vgg16-397923af.pth" in notes["dists"] and checkpoints in notes["dists"]
    assert "hf download" in notes["clip_iqa"]
    assert "licence" in notes["musiq"]


def test_lpips_and_dists_where_their_backbones_are():
    made_backbone("lpips-vgg")
    made_backbone("lpips-alex")
    measures, notes = learned_measures(torch.device("cpu"))
    assert {"lpips", "dists"} <= set(measures) and "lpips" not in notes
    (image, truth) = images(1, 64)[:, 0]
    for name in ("lpips", "dists"):
        assert measures[name](image.double(), truth.double()) > 0.001
        assert abs(measures[name](truth, truth)) < 1e-5


def test_a_damaged_backbone_is_a_sentence():
    path = backbone_file("lpips-vgg")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a pickle")
    with pytest.raises(ModelError, match="download .* again"):
        Dists()
