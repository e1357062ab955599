"""Scenes that other tools wrote: what their numbers mean, and which of their arrays are bands."""
