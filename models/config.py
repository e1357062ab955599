"""The base of every settings class: frozen, with finite numbers, and a misspelt key is an error."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Settings as a recipe (TOML) states them; each module owns its own subclass, whose defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
