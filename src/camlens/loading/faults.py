"""Distinguish errors of the machine, which may be temporary, from errors of an image."""

from __future__ import annotations

import errno

import torch

#: Errors of disks, networks and quotas, after which the same image may be readable again.
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
#: Texts in torch's RuntimeErrors that are caused by the machine and not by the data.
_TEXTS = (
    "not enough memory",
    "out of memory",
    "can't allocate memory",
    "CUDA error",
    "cuDNN error",
    "NCCL error",
)


def is_machine_fault(error: BaseException) -> bool:
    """Return whether an error is unrelated to the image that was being read or explained.

    Examples are too little memory, a missing library, time-outs, broken connections, full disks and
    quotas, GPU errors, and misspelt names in the code.

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
