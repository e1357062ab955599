"""Where work runs: this machine's cores and cards, a cluster, and who is still there."""
