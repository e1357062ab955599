"""What holds a mosaic to its scene, against block means in plain numpy."""

import torch

from rsup.models.consistency import match_block_means, project


def test_smooth_matching_meets_the_means_and_leaves_a_consistent_picture_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    sr = torch.rand(2, 3, 64, 64, generator=generator) * 1000 + 500
    lr = torch.rand(2, 3, 16, 16, generator=generator) * 1000 + 500
    out = match_block_means(sr, lr, 4)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(out, 4), lr, atol=0.01, rtol=0)
    torch.testing.assert_close(match_block_means(out, lr, 4), out, atol=0.02, rtol=0)


def test_projection_keeps_the_mean_where_clipping_would_not() -> None:
    sr = torch.tensor([[-500.0, 100.0, 60000.0, 70000.0], [0.0, 420.0, 65000.0, 65000.0]])[None]
    lr = torch.tensor([[5.0, 65000.0]])[None]
    out = project(sr, lr, 2)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(out, 2), lr, atol=0.01, rtol=0)
    assert out.min() >= 1 - 1e-3 and out.max() <= 65535 + 1e-2
    inside = torch.tensor([[900.0, 1100.0], [1000.0, 1000.0]])[None]
    torch.testing.assert_close(project(inside, torch.tensor([[[1200.0]]]), 2), inside + 200)
