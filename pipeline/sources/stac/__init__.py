"""STAC catalogues: whatever others wrote in, references to distinct items out."""
