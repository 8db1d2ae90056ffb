"""What the C library keeps of freed memory. Batches of ever other shapes leave holes in its heap that nothing fits into, and a
server that is busy for an hour would have grown by hundreds of megabytes; a model that was put into 8 bits leaves as many.
Does nothing where the library is not glibc.
"""

from __future__ import annotations

import ctypes

MAPPED_BYTES = 2 << 20
"""Blocks from this size on, the activations of long batches, have memory of their own, given back when they are freed. glibc
would raise the bound to 32 MB by itself."""
_M_MMAP_THRESHOLD = -3  # of malloc.h

_LIBC = ctypes.pythonapi if hasattr(ctypes.pythonapi, "malloc_trim") else None


def map_large_blocks() -> None:
    """For the process, once."""
    if _LIBC is not None:
        _LIBC.mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def give_back() -> None:
    """The holes go to the system; tens of milliseconds."""
    if _LIBC is not None:
        _LIBC.malloc_trim(0)
