"""Which rsup this is."""

from importlib.metadata import version

VERSION = version("rsup")
"""Asked for once: it is read from a file."""
