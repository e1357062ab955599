"""The order in which `fetch` and `upscale` do what they do."""
