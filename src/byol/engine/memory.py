"""Memory that a step frees stays with the process for the next one (Linux with glibc, CPU).

glibc hands every large tensor back to the system, which clears each of its pages anew when the next
step asks for them. That is a tenth of a ResNet's step. CUDA keeps its own.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # numbers of mallopt(3)


def keep_freed() -> None:
    """From now on freed memory is reused, not returned; a no-op where glibc is not the C library.

    The process holds its peak until it ends.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)  # large blocks come from the heap, too
        mallopt(_TRIM_THRESHOLD, -1)  # whose end is never cut off
