"""As much of HTTP/2 and gRPC as it takes to be a bad client: frames are written by hand, answers need not be read."""
import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, ACK, END_HEADERS = 1, 1, 4
SCORE = "/hilomoe.v1.ScoringService/Score"
SCORE_STREAM = SCORE + "Stream"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(path):
    """HPACK, every field literal and not indexed."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost",
              "content-type": "application/grpc", "te": "trailers"}
    block = b""
    for name, value in fields.items():
        block += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return block


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def score_request(candidates):
    """A ScoreRequest without columns: every feature is missing."""
    message = b"\x18" + varint(candidates)
    return b"\0" + struct.pack(">I", len(message)) + message


class Connection:
    """A connection that reads nothing unless it is told to."""

    def __init__(self, address, hello=True, receive_buffer=None):
        host, port = address.rsplit(":", 1)
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect((host, int(port)))
        self.next_stream = 1
        if hello:
            self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def call(self, path, message):
        """Sends a whole call; its stream."""
        stream = self.next_stream
        self.next_stream += 2
        self.socket.sendall(frame(HEADERS, END_HEADERS, stream, headers(path)) +
                            frame(DATA, END_STREAM, stream, message))
        return stream

    def cancel(self, stream):
        self.socket.sendall(frame(RST_STREAM, 0, stream, struct.pack(">I", 8)))

    def call_and_cancel(self, path, message, calls):
        """So many at once."""
        packet = b""
        for _ in range(calls):
            stream = self.next_stream
            self.next_stream += 2
            packet += frame(HEADERS, END_HEADERS, stream, headers(path)) + frame(DATA, END_STREAM, stream, message) + \
                frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
        self.socket.sendall(packet)

    def acknowledge_settings(self):
        self.socket.sendall(frame(SETTINGS, ACK, 0))

    def closed_by_server(self):
        """Whether the server has ended the connection; reads what it has said."""
        self.socket.setblocking(False)
        try:
            while True:
                if not self.socket.recv(65536):
                    return True
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            try:
                self.socket.settimeout(20)
            except OSError:
                pass

    def close(self):
        self.socket.close()
