"""From a chunk's pixels to the outputs: store, GeoTIFF, STAC item, page."""
