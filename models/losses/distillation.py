"""Feature distillation: two UNets in, the maps they make of an image taken from both, losses out.

Teacher and student name their parts `down_blocks`, `mid_block`, `up_blocks`, so a teacher may be Stable Diffusion's
UNet or a larger student. Source: SlimDiffSR, section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rsup.models.base.errors import ModelError
from rsup.models.base.settings import Config

from .terms import Weight, mmd2


class DistillationConfig(Config):
    """Weights of Eq. 19 and what the paper leaves open about it."""

    mse: Weight = 1.0
    mmd: Weight = 0.1
    """0 leaves the discrepancy out."""
    samples: Annotated[int, Field(ge=2, le=4096)] = 256
    """Positions of a map that Eq. 18 compares, drawn anew at each call; time and memory grow with their square."""
    bandwidth: Annotated[float, Field(gt=0)] | None = None
    """sigma of the kernel; without it, the median distance of the samples."""
    adapter_kernel: Literal[1, 3] = 1
    """Size of the adapters' convolution. 1 maps channels and leaves it to the student to put things in their place."""


class FeatureTaps:
    """`with FeatureTaps(unet, names) as taps: ...` keeps in `taps.features` what the named submodules last gave.

    The hooks are on for the length of the block, and hold no state outside this object. Not for two threads at once.
    """

    def __init__(self, unet: nn.Module, names: Sequence[str]) -> None:
        self._modules = [unet.get_submodule(name) for name in names]
        self.names = tuple(names)
        self._found: dict[int, Tensor] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> FeatureTaps:
        self._found = {}
        for place, module in enumerate(self._modules):
            self._handles.append(module.register_forward_hook(self._keeper(place)))
        return self

    def __exit__(self, *_: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    @property
    def features(self) -> list[Tensor]:
        """Maps [n, c, h, w], gradients and all, in the order of the names; stays after the block."""
        silent = [name for place, name in enumerate(self.names) if place not in self._found]
        if silent:
            raise RuntimeError(f"{silent[0]} has not been called inside the block")
        return [self._found[place] for place in range(len(self.names))]

    def _keeper(self, place: int) -> Any:
        def keep(module: nn.Module, _: Any, output: Any) -> None:
            self._found[place] = _level_map(module, output)

        return keep


class Distillation(nn.Module):
    """MSE and MMD between the levels of two UNets (Eq. 17-19), through adapters that are trained with the student.

    Call it with the student's and the teacher's features, in the order of `student_levels` and `teacher_levels`; the
    result has `mse` and, where it has a weight, `mmd`: means over the levels, unweighted. The adapters are of no use
    afterwards. Positions are drawn from torch's global generator. Raises ModelError for UNets that do not correspond.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, config: DistillationConfig) -> None:
        super().__init__()
        self.config = config
        pairs = corresponding_levels(student, teacher)
        self.student_levels = tuple(ours for ours, _ in pairs)
        self.teacher_levels = tuple(theirs for _, theirs in pairs)
        kernel = config.adapter_kernel
        self.adapters = nn.ModuleList(
            nn.Conv2d(_width(student, ours), _width(teacher, theirs), kernel, padding=kernel // 2)
            for ours, theirs in pairs
        )

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Maps [n, c, h, w], one a level; gradients go to the student and the adapters alone.

        Squares are means, not sums: levels of different sizes and widths weigh alike, whatever the crop.
        """
        terms: dict[str, list[Tensor]] = {"mse": [], "mmd": []}
        levels = zip(self.adapters, self.student_levels, student_features, teacher_features, strict=True)
        for adapter, name, ours, theirs in levels:
            if ours.shape[-2:] != theirs.shape[-2:]:
                raise ModelError(
                    f"{name} of the student has {ours.shape[-1]} x {ours.shape[-2]} positions where the teacher has "
                    f"{theirs.shape[-1]} x {theirs.shape[-2]}: their autoencoders must shrink images alike"
                )
            ours, theirs = adapter(ours).float(), theirs.detach().float()
            terms["mse"].append((ours - theirs).square().mean())
            if self.config.mmd:
                terms["mmd"].append(self._discrepancy(ours, theirs))
        return {name: torch.stack(values).mean() for name, values in terms.items() if values}

    def _discrepancy(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """Eq. 18: the vectors at an image's positions are its samples; mean over the images.

        Images are compared one by one, since each has a teacher's map of its own; and at the same positions, so that
        equal maps cost exactly nothing.
        """
        positions = ours.shape[-2] * ours.shape[-1]
        chosen = torch.randperm(positions)[: self.config.samples].to(ours.device)
        x, y = (maps.flatten(2)[:, :, chosen].transpose(1, 2) for maps in (ours, theirs))
        return mmd2(x, y, self.config.bandwidth).mean()


def corresponding_levels(student: nn.Module, teacher: nn.Module) -> list[tuple[str, str]]:
    """Names of the submodules to compare, student's and teacher's, in the order they run.

    Levels keep their resolutions, so ways down correspond from the top and ways up from the bottom of the list. Where
    the student lacks the teacher's deepest levels, its middle stands for them: it is compared with what comes back up
    from there. Raises ModelError where the student has more levels than the teacher.
    """
    ours, theirs = (len(list(unet.get_submodule("down_blocks").children())) for unet in (student, teacher))
    removed = theirs - ours
    if removed < 0:
        raise ModelError(f"a student of {ours} levels cannot learn from a teacher of {theirs}: choose fewer levels")
    middle = f"up_blocks.{removed - 1}" if removed else "mid_block"
    down = [(f"down_blocks.{i}", f"down_blocks.{i}") for i in range(ours)]
    up = [(f"up_blocks.{i}", f"up_blocks.{i + removed}") for i in range(ours)]
    return [*down, ("mid_block", middle), *up]


def _width(unet: nn.Module, name: str) -> int:
    """Channels of what a level gives: those of its last residual block, which samplers and attentions keep."""
    level = unet.get_submodule(name)
    blocks = list(level.get_submodule("resnets").children()) if hasattr(level, "resnets") else [level]
    return int(blocks[-1].get_submodule("norm2").num_channels)  # type: ignore[arg-type]


def _level_map(level: nn.Module, output: Any) -> Tensor:
    """A level's map at its own resolution: on the way down, before the downsampler, which a student's last level lacks.

    Levels on the way down give a map a residual block and then the downsampled one, if any: a student's as a list, a
    diffusers block as the second of (last map, maps).
    """
    if isinstance(output, tuple):
        output = output[1]
    if isinstance(output, Tensor):
        return output
    state: Tensor = output[len(list(level.get_submodule("resnets").children())) - 1]
    return state
