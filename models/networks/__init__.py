"""What runs: a network a file or a folder, and what all of them need."""
