"""The demonstration: a made landscape of known truth, its Sentinel-2-like archive, servers on loopback."""
