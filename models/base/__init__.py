"""What both halves of rsup stand on: a closed list, which imports nothing above it and no heavy library."""
