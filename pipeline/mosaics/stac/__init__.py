"""What is said of a mosaic and of its model, in STAC."""
