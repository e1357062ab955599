"""The base of every settings class: frozen, with finite numbers, a misspelt key is an error; and which, in one line.

Importing this module does not import torch.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

_LONGEST = 300
"""Characters of a reason: keys and words are whatever somebody wrote into a file."""
_REMEDIES = {
    "extra_forbidden": "correct its name, or leave it out",
    "missing": "add it",
    "string_type": 'write it in quotes, as "..."',
    "tuple_type": "write a list, as [..., ...]",
}
"""What helps, by pydantic's type of a problem, where its own words do not say."""


class Config(BaseModel):
    """Settings as a recipe (TOML) states them; each module owns its own subclass, whose defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def first_problem(error: ValidationError) -> str:
    """The first thing pydantic found wrong, in one line."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    text = (f"{place}: " if place else "") + problem["msg"].removeprefix("Value error, ")
    if helps := _REMEDIES.get(problem["type"]):
        text += f": {helps}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
