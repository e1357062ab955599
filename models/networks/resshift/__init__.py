"""Residual shifting: the denoiser in a latent space, and the student that needs one step of it."""
