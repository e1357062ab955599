"""The ways to train: one file each."""
