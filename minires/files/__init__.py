"""Read and write files safely: complete files or none, pickles that cannot run code, PyTorch's files, JSON records."""
