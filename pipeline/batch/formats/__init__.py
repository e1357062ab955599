"""What others read and write of an archive: its area, its months as one image, its map. Nothing here knows a job."""
