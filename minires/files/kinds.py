"""Recognise files that are not what their names say, so that an error can say what they are."""
from __future__ import annotations

HEAD = 300  # how many bytes of a file are enough to recognise it


def other_kind(head: bytes) -> str:
    """Return a sentence about a file that begins with `head`, if it is of a kind that no reader here reads; else ""."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself; run git lfs pull, or download the file itself"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "it is a web page, not the file itself; the site may have asked for a login or answered with an error"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return ("it is an HDF5 file, which Keras and MATLAB write; load it with the program that wrote it, and save "
                "its arrays with numpy.savez")
    return ""
