"""This module calls cuBLAS directly for matrix products on the GPU, because a CUDA graph cannot record CuPy's products.

It has its own handle and workspace, and sets both on the current stream at every call. So cuBLAS allocates nothing,
which a recording would not allow. It also chooses the same algorithm every time, so a recorded step and an ordinary
step give the same bits. If the library cannot be loaded, CuPy multiplies, and no step can be recorded.
"""
from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from .. import device

NONE, TRANSPOSE = 0, 1            # cublasOperation_t
FLOAT32 = 0                       # cudaDataType_t, CUDA_R_32F
COMPUTE, COMPUTE_TF32 = 68, 77    # cublasComputeType_t, CUBLAS_COMPUTE_32F and CUBLAS_COMPUTE_32F_FAST_TF32
DEFAULT = -1                      # cublasGemmAlgo_t, CUBLAS_GEMM_DEFAULT: cuBLAS chooses the algorithm
WORKSPACE = 32 << 20              # bytes; NVIDIA recommends this size for Hopper and later GPUs

_tf32: ContextVar[bool] = ContextVar("tf32", default=os.environ.get("MINIRES_TF32") == "1")


def tf32_allowed() -> bool:
    """Return True if matrix products in this context may use TF32."""
    return _tf32.get()


@contextmanager
def tf32(on: bool = True) -> Iterator[None]:
    """Allow TF32 inside this context: float32 matrix products on a GPU round their factors to 10 bits after the point
    (relative error about 5e-4) and run on tensor cores.

    The default is off. MINIRES_TF32=1 in the environment turns TF32 on everywhere.
    """
    token = _tf32.set(bool(on))
    try:
        yield
    finally:
        _tf32.reset(token)


def matmul(a: Any, b: Any) -> Any:
    """Compute reference.matmul for float32 on the GPU. CuPy multiplies stacked matrices, and raises the error if shapes
    do not fit."""
    cublas = _open(device.of(a))
    if cublas is None or a.ndim != 2 or b.ndim != 2 or a.shape[1] != len(b) or 0 in (*a.shape, b.shape[1]):
        return a @ b
    xp, out = device.of(a), device.of(a).empty((a.shape[0], b.shape[1]), np.float32)
    (op_a, ld_a, a), (op_b, ld_b, b) = _as_stored(a), _as_stored(b)
    # cuBLAS stores matrices by columns, so it sees every matrix transposed, and (A B)^T = B^T A^T.
    library, handle, workspace = cublas
    _check("SetStream", library.cublasSetStream_v2(handle, _pointer(xp.cuda.get_current_stream().ptr)))
    _check("SetWorkspace", library.cublasSetWorkspace_v2(handle, _pointer(workspace.data.ptr),
                                                         ctypes.c_size_t(WORKSPACE)))  # SetStream had reset it
    one, zero = ctypes.c_float(1), ctypes.c_float(0)
    _check("GemmEx", library.cublasGemmEx(
        handle, op_b, op_a, out.shape[1], out.shape[0], a.shape[1], ctypes.byref(one),
        _pointer(b.data.ptr), FLOAT32, ld_b, _pointer(a.data.ptr), FLOAT32, ld_a, ctypes.byref(zero),
        _pointer(out.data.ptr), FLOAT32, out.shape[1], COMPUTE_TF32 if _tf32.get() else COMPUTE, DEFAULT))
    return out


def _as_stored(a: Any) -> tuple[int, int, Any]:
    """Return (operation, leading dimension, array), which describe the layout of `a` in memory. The array is a copy if
    neither the rows nor the columns of `a` are contiguous."""
    rows, columns = a.shape
    down, right = (s // a.itemsize for s in a.strides)
    if (right == 1 or columns == 1) and (down >= columns or rows == 1):
        return NONE, max(down, columns) if rows > 1 else columns, a
    if (down == 1 or rows == 1) and (right >= rows or columns == 1):
        return TRANSPOSE, max(right, rows) if columns > 1 else rows, a
    return NONE, columns, device.of(a).ascontiguousarray(a)


def _pointer(address: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(address)


def _check(name: str, status: int) -> None:
    if status:
        raise RuntimeError(f"cublas{name} failed with status {status} (cublasStatus_t)")


@functools.cache
def _open(xp: Any) -> tuple[Any, Any, Any] | None:
    """Return (library, handle, workspace), or None if the library cannot be loaded."""
    library = _library(xp)
    if library is None:
        return None
    handle = ctypes.c_void_p()
    _check("Create", library.cublasCreate_v2(ctypes.byref(handle)))
    return library, handle, xp.empty(WORKSPACE, np.uint8)


def _library(xp: Any) -> Any:
    """Return the cuBLAS of CuPy's CUDA version. Once CuPy has loaded it to create a handle, its bare name works."""
    try:
        _ = xp.cuda.Device().cublas_handle
        return ctypes.CDLL(f"libcublas.so.{xp.cuda.runtime.runtimeGetVersion() // 1000}")
    except OSError:
        return None
