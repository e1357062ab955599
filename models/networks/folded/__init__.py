"""Networks as they run on a CPU: the same functions, written for few passes over memory."""
