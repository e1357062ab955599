"""The mosaic as a GeoTIFF."""
