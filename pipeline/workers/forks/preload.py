"""What workers are going to need: imported by importing this, in the process that they are forked from.

Workers share it, and their collectors never go through it again, which would also copy every page that it lies on.
"""

from rsup.pipeline.memory import importing

with importing():
    import rsup.pipeline.mosaics.chunk
    import rsup.pipeline.workers.model  # noqa: F401
