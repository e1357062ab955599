"""How a high-resolution image becomes the pair that a network learns from."""
