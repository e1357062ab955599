"""Failures a user can cause: one class a kind, one exit code a class.

Exit codes: 1 anything else, 2 arguments and recipes, 3 models, 4 catalogue, 5 scene, 6 output, 7 chunks that failed
or whose workers were lost; of rsup.models: 8 images to learn from, 9 training.
"""

from rsup.models.base.errors import ModelError, RsupError

__all__ = [
    "ArgumentError",
    "CatalogError",
    "ChunkError",
    "ModelError",
    "OutputError",
    "RsupError",
    "SceneError",
]


class ArgumentError(RsupError):
    """An option's value makes no sense (bbox, date, scale, band, chunk size)."""

    exit_code = 2


class CatalogError(RsupError):
    """A STAC catalogue that is unreachable, answers nonsense, or has nothing for the request."""

    exit_code = 4


class SceneError(RsupError):
    """A scene (store, GeoTIFF or source asset) that cannot be read or breaks the scene contract."""

    exit_code = 5


class OutputError(RsupError):
    """An output that cannot be written: no permission, no space, or it belongs to another run."""

    exit_code = 6


class ChunkError(RsupError):
    """Some chunks failed for good or lost their workers; the others are done and a rerun goes on with the rest."""

    exit_code = 7
