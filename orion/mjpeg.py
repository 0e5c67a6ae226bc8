"""MJPEG over HTTP, read by us and not by FFmpeg, which waits for several pictures before it opens. The splitter is
pure; `MjpegStream` runs in the source's capture thread and owns one connection.
"""

import http.client
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO, Final
from urllib.parse import quote, unquote, urlunsplit
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPDigestAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    OpenerDirector,
    Request,
)

from orion.errors import SourceError
from orion.uri import split

MAX_PICTURE_BYTES: Final = 64 << 20
"""Larger than any camera's JPEG; a part that grows past it is garbage."""
_MAX_HEADER_BYTES: Final = 64 << 10
_CHUNK_BYTES: Final = 64 << 10
_KEPT: Final = "%/:=&?~+!$,;'@()*[]"
"""Characters of a path and a query that go to the server as they are written."""
_MULTIPART = "multipart/x-mixed-replace"
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_CONTENT_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,9})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class PartSplitter:
    """Cuts the body of a `multipart/x-mixed-replace` answer into its parts, whatever pieces it arrives in.

    `boundary` is the parameter of the content type, with or without the leading dashes that some cameras put there.
    Parts with a Content-Length are taken by it, others up to the next boundary. Raises SourceError on what is no such
    body: no boundary, a header or a part past its limit.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"--" + boundary.strip("\"' ").removeprefix("--").encode("latin-1", "replace")
        self._buffer = bytearray()
        self._searched = 0
        self.ended = False
        """True once the closing boundary has been seen; whatever follows it is no part."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each part that `data` completes, without its header."""
        self._buffer += data
        while not self.ended and (part := self._next()) is not None:
            yield part

    def _next(self) -> bytes | None:
        start = self._buffer.find(self._delimiter)
        if start < 0:
            return self._wait(len(self._buffer), _MAX_HEADER_BYTES, "no boundary where one must be")
        del self._buffer[:start]
        after = len(self._delimiter)
        if self._buffer[after : after + 2] == b"--":
            self.ended = True
            return None
        header = _HEADER_END.search(self._buffer, after)
        if header is None:
            return self._wait(len(self._buffer), _MAX_HEADER_BYTES, "a header without an end")
        length = _CONTENT_LENGTH.search(self._buffer, after, header.end())
        if length is not None:
            return self._by_length(header.end(), int(length[1]))
        return self._by_boundary(header.end())

    def _by_length(self, begin: int, length: int) -> bytes | None:
        end = begin + length
        if length > MAX_PICTURE_BYTES or len(self._buffer) < end:
            return self._wait(length, MAX_PICTURE_BYTES, "a picture that is too large")
        return self._take(begin, end, end)

    def _by_boundary(self, begin: int) -> bytes | None:
        end = self._buffer.find(self._delimiter, max(begin, self._searched))
        if end < 0:
            self._searched = max(begin, len(self._buffer) - len(self._delimiter))
            return self._wait(len(self._buffer) - begin, MAX_PICTURE_BYTES, "a picture without an end")
        return self._take(begin, end, end)

    def _take(self, begin: int, end: int, rest: int) -> bytes:
        part = bytes(self._buffer[begin:end])
        del self._buffer[:rest]
        self._searched = 0
        return part

    @staticmethod
    def _wait(size: int, limit: int, what: str) -> None:
        if size > limit:
            raise SourceError(f"sends {what}: is it an MJPEG stream?")


class MjpegStream:
    """One connection to an MJPEG server; used by one thread. Raises SourceError if there is none, or it is refused.

    `timeout_s` bounds each wait for the server, and each picture. User and password of the address answer a Basic or
    Digest challenge. Texts of errors are clauses about the server, without its address.
    """

    def __init__(self, uri: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._parts: Iterator[bytes] = iter(())
        self._response = _request(uri, timeout_s)
        boundary = self._response.headers.get_param("boundary")
        self.multipart = self._response.headers.get_content_type() == _MULTIPART and isinstance(boundary, str)
        """False if the server answers something else, which `content_type` names; then there is nothing to read."""
        self.content_type = self._response.headers.get_content_type()
        self._splitter = PartSplitter(boundary if isinstance(boundary, str) else "")

    def read(self) -> bytes:
        """Return the next part, usually one JPEG. Raises SourceError when the server ends, stops or sends garbage."""
        deadline = time.monotonic() + self._timeout_s
        while (part := next(self._parts, None)) is None:
            if time.monotonic() > deadline:
                raise SourceError(f"sent no whole picture for {self._timeout_s:g} s")
            data = b"" if self._splitter.ended else self._receive()
            if not data:
                raise SourceError("ended the stream")
            self._parts = self._splitter.feed(data)
        return part

    def _receive(self) -> bytes:
        try:
            return self._response.read1(_CHUNK_BYTES)
        except TimeoutError:
            raise SourceError(f"sent nothing for {self._timeout_s:g} s") from None
        except (OSError, HTTPException, ValueError) as error:
            raise SourceError(f"broke the connection off ({type(error).__name__})") from error

    def close(self) -> None:
        """Close the connection. Twice is once."""
        self._response.close()


def _request(uri: str, timeout_s: float) -> HTTPResponse:
    """Open `uri` and return the answer, whose body is not read yet."""
    parts = split(uri)
    path, query = quote(parts.path or "/", safe=_KEPT), quote(parts.query, safe=_KEPT)
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, query, ""))
    passwords = HTTPPasswordMgrWithDefaultRealm()
    if parts.username is not None:
        passwords.add_password(None, bare, unquote(parts.username), unquote(parts.password or ""))
    try:
        response = _opener(passwords).open(bare, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        raise SourceError(_refusal(error.code)) from None
    except urllib.error.URLError as error:
        raise SourceError(_unreachable(error.reason, timeout_s)) from None
    except (OSError, HTTPException) as error:
        raise SourceError(_unreachable(error, timeout_s)) from None
    except ValueError:
        raise SourceError("the server asks for a kind of login that is not supported") from None
    if not isinstance(response, HTTPResponse):
        raise SourceError("the server leads on to an address that is not HTTP")
    return response


class _BasicLogin(HTTPBasicAuthHandler):
    """Leaves a challenge that is not Basic to others; the library's own class fails on it. Closes the refusal."""

    def http_error_401(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage) -> object:
        offered = headers.get_all("WWW-Authenticate") or []
        if not any(challenge.lower().startswith("basic") for challenge in offered):
            return None
        fp.close()
        return super().http_error_401(req, fp, code, msg, headers)


class _DigestLogin(HTTPDigestAuthHandler):
    """Leaves a challenge that is not Digest to others; the library's own class fails on some. Closes the refusal."""

    def http_error_401(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage) -> object:
        if not headers.get("WWW-Authenticate", "").lower().startswith("digest"):
            return None
        fp.close()
        return super().http_error_401(req, fp, code, msg, headers)


def _opener(passwords: HTTPPasswordMgrWithDefaultRealm) -> OpenerDirector:
    """Return what follows redirections and answers challenges, over HTTP alone and with no proxy: cameras are near."""
    opener = OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        _BasicLogin(passwords),
        _DigestLogin(passwords),
    ):
        opener.add_handler(handler)
    return opener


def _refusal(code: int) -> str:
    advice = {401: "user or password is missing or wrong", 403: "the server refuses this user or this address"}
    meaning = http.client.responses.get(code, "")
    return f"the server answers {code} {meaning}: {advice.get(code, 'check the path')}"


def _unreachable(reason: object, timeout_s: float) -> str:
    check = "check the address, the network and whether the camera is on"
    if isinstance(reason, TimeoutError):
        return f"no answer within {timeout_s:g} s: {check}"
    if isinstance(reason, socket.gaierror):
        return "the host's name is unknown: check it, or the name server"
    if isinstance(reason, OSError) and reason.strerror:
        return f"{reason.strerror}: {check}"
    return f"what answers there speaks no HTTP ({type(reason).__name__}): check the port"
