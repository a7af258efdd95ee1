"""Distinguish errors of the machine, which may be temporary, from errors of an image."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from http.client import HTTPException
from urllib.error import HTTPError

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
#: Errors of the machine or of a connection, whatever their text.
_TYPES = (
    *(ImportError, MemoryError, NameError, TimeoutError, ConnectionError, BrokenExecutor),
    *(HTTPException, socket.gaierror, ssl.SSLError, torch.OutOfMemoryError),
)
#: Answers of a server that is too busy or has failed.
_BUSY = frozenset([408, 429, *range(500, 600)])
#: Texts in torch's RuntimeErrors that are caused by the machine and not by the data.
_TEXTS = (
    *(os.strerror(number) for number in _TRANSIENT),
    "out of shared memory",
    "can't start new thread",
    "CUBLAS_STATUS",
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
    return any(map(_is_fault, _with_causes(error)))


def _is_fault(error: BaseException) -> bool:
    if isinstance(error, HTTPError):
        return error.code in _BUSY
    if isinstance(error, _TYPES):
        return True
    if getattr(getattr(error, "response", None), "status_code", None) in _BUSY:  # requests, httpx
        return True
    if isinstance(error, OSError):
        return error.errno in _TRANSIENT
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from or holds, as urllib's and requests' do."""
    found, known = [error], {id(error)}
    while found:
        one = found.pop()
        yield one
        for cause in (one.__cause__, getattr(one, "reason", None), *one.args):
            if isinstance(cause, BaseException) and id(cause) not in known:
                known.add(id(cause))
                found.append(cause)
