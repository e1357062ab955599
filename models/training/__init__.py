"""What every kind of training shares: recipes, the loop, its folder, its checkpoints."""
