"""The scene store, its contract, and what is read from strangers' scenes."""
