"""The ways to train: one file each, and one table that says which recipe leads to which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from rsup.models.training.task import Task

from .rsd import ResShiftTask, rsd_task
from .slimdiffsr_student import StudentTask
from .slimdiffsr_teacher import TeacherTask


class Method(NamedTuple):
    """What a recipe's `method` names."""

    role: Literal["teacher", "student"]
    """The command that runs it: `rsup train teacher` or `rsup train student`."""
    task: Callable[[Any], Task]
    """Its recipe -> the task; raises ModelError and RecipeError for what the recipe names and is not there."""


METHODS = {
    "slimdiffsr-teacher": Method("teacher", TeacherTask),
    "slimdiffsr-student": Method("student", StudentTask),
    "resshift": Method("teacher", ResShiftTask),
    "rsd": Method("student", rsd_task),
}
