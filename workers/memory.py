"""The memory of a worker process, as far as closed sessions leave some behind. Used by the thread that closes them."""

import ctypes
import gc


def trim_memory() -> None:
    """Hand the memory of closed sessions back to the system, where the C library can."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
