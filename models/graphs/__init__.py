"""A model as a graph that other programs run: ONNX and torch.export files, and what runs ONNX here."""
