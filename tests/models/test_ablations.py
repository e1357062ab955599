"""The student's switches: the paper's counts, and variants that run, learn, and are saved and loaded."""

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

from rsup.models.published import dead_shapes, parameters_as_published, published_layout
from rsup.models.registry import student_counts
from rsup.models.student import Student, StudentConfig, parameters
from rsup.models.weights import load_student, read_header, save_weights, student_header

VARIANTS = [
    {"fused": False},
    {"autoencoder": "kl", "fused": False},
    {"autoencoder": "kl"},
    {"dsc": False},
    {"fsc": False},
    {"qgam": False},
    {"sap": False},
    {"sap": False, "fused": False, "dsc": False, "fsc": False, "qgam": False},
]


@pytest.fixture(scope="module")
def sd21() -> UNet2DConditionModel:
    """Stable Diffusion 2.1's UNet, without its numbers."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024, use_linear_projection=True
        )


@pytest.mark.parametrize(
    ("switches", "millions", "live"),
    [
        ({}, 58.053, 55.975),
        ({"fused": False}, 57.684, 55.634),
        ({"autoencoder": "kl", "fused": False}, 138.893, 136.843),
        ({"dsc": False}, 93.182, 91.104),
        ({"fsc": False}, 99.460, 97.382),
        ({"qgam": False}, 66.522, 64.443),
        ({"sap": False}, 168.331, 167.155),
    ],
)
def test_counts_of_the_tables(switches, millions, live):
    """Tables 5 and 6; of 168.3 M the paper prints no more digits."""
    config = StudentConfig(**switches)
    with torch.device("meta"):
        student = Student(config)
    assert round(parameters_as_published(config) / 1e6, 3) == millions
    assert round(parameters(student) / 1e6, 3) == live


def test_the_paper_counts_cross_attention_without_qgam(sd21):
    """Its 81.11 M: what it deletes elsewhere, in a network whose convolutions are not fused."""
    kept = (*sd21.down_blocks[:2], *sd21.up_blocks[2:])
    unused = sum(
        p.numel()
        for block in kept
        for name, p in block.named_parameters()
        if ".attn2." in name or ".norm2." in name
        if "attentions" in name
    )
    assert parameters_as_published(StudentConfig(qgam=False, fused=False)) + unused == 81_117_658
