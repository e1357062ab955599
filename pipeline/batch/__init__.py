"""Archives instead of scenes: a job's units, each a cell of ground in an interval of time, fetched and upscaled."""
