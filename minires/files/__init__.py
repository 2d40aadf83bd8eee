"""Bytes on disk, read and written safely: whole files or none, pickles that cannot run anything, PyTorch's files."""
