"""SlimDiffSR: the uncertainty-guided one-step teacher and the pruned student."""
