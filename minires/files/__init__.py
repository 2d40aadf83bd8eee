"""Read and write files safely: complete files or none, pickles that cannot run code, and PyTorch's files."""
