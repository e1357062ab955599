"""Images to learn from, as they lie on disk: read, divided without leaks, put together in batches."""
