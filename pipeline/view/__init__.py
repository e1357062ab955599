"""A map of mosaics for the browser of this machine: what `rsup view` serves on loopback."""
