"""SAFE products: their granules, their metadata and their images."""
