"""Why an RTSP server cannot be read: asks it once, by hand, since the capture library only says that it failed. Runs in
the capture thread of the source, after a failed attempt; owns its one connection and nothing else.
"""

import re
import socket
from urllib.parse import urlunsplit

from orion.uri import split

DEFAULT_PORT = 554
_STATUS = re.compile(rb"RTSP/\d\.\d (\d{3}) ?([ -~]{0,80})")
_ADVICE = {
    401: "user or password is missing or wrong",
    403: "the server refuses this user or this address",
    404: "the server has no such path",
    453: "the server has no bandwidth left",
    461: "the server does not speak RTSP over TCP",
    503: "the server is not ready or serves too many",
}


def explain(uri: str, timeout_s: float) -> str:
    """Return one clause that says what an RTSP server answers to being asked for `uri`; never holds credentials.

    Takes `timeout_s` at most for each of connecting and answering. Raises nothing: being unreachable is an answer too.
    """
    parts = split(uri)
    host = parts.hostname or ""
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
    request = f"DESCRIBE {bare} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    try:
        with socket.create_connection((host, parts.port or DEFAULT_PORT), timeout_s) as connection:
            if parts.scheme != "rtsp":
                return "the server accepts connections, but sends no stream"
            connection.sendall(request.encode("ascii", "replace"))
            return _read_answer(connection.recv(4096))
    except TimeoutError:
        return "no answer in time: check the address, the network and whether the camera is on"
    except socket.gaierror:
        return "the host's name is unknown: check it, or the name server"
    except OSError as error:
        return (
            f"{error.strerror or 'the connection broke'}: check the address, the network and whether the camera is on"
        )


def _read_answer(answer: bytes) -> str:
    if not answer:
        return "the server hangs up: is it an RTSP server?"
    status = _STATUS.match(answer)
    if status is None:
        return "what answers there is no RTSP server: check the port"
    code = int(status[1])
    if code == 200:
        return "the server offers the stream, but sent no picture that can be decoded in time"
    advice = _ADVICE.get(code, "check the path")
    return f"the server answers {code} {status[2].decode('ascii', 'replace').strip()}: {advice}"
