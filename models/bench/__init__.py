"""What networks cost on this machine: rsup's own beside the sizes that its peers have."""
