"""Tell a fault of the machine or of the moment from a fault of an image."""

from __future__ import annotations

import errno

import torch

#: Errors of disks, networks and quotas: later, the same image may well be read.
_TRANSIENT = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "ESTALE", "ETIMEDOUT", "EAGAIN", "EBUSY"),
        *("EINTR", "EDQUOT", "EROFS", "ENXIO", "ENODEV", "EREMOTEIO", "ENOTCONN", "ENOLINK"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET", "ECONNABORTED"),
        *("ECONNREFUSED", "ECONNRESET", "ENOBUFS", "EPIPE", "ESHUTDOWN", "ECOMM", "EPROTO"),
        *("ETXTBSY", "EDEADLK", "ENOLCK", "ENOMEDIUM", "EMEDIUMTYPE", "EUSERS"),
    )
    if hasattr(errno, name)
)
#: How torch says, in a RuntimeError, that the machine and not the data is at fault.
_TEXTS = (
    "not enough memory",
    "out of memory",
    "can't allocate memory",
    "CUDA error",
    "cuDNN error",
    "NCCL error",
)


def is_machine_fault(error: BaseException) -> bool:
    """Return whether an error says nothing about the image that was being read or explained.

    Such are too little memory, a library that is missing, time-outs, broken connections, full
    disks and quotas, errors of a GPU, and misspelt names in the code.

    Example:
        >>> is_machine_fault(TimeoutError()), is_machine_fault(ValueError("no whole image"))
        (True, False)
    """
    if isinstance(error, (ImportError, MemoryError, NameError, TimeoutError, ConnectionError)):
        return True
    if isinstance(error, OSError):
        return error.errno in _TRANSIENT
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)
