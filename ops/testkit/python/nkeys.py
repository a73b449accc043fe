"""The part of PyPI's `nkeys` that nats-py needs for `user_credentials=`, without its compiled dependencies: the tests
find it in PYTHONPATH. Signs with Ed25519 as in RFC 8032, section 5.1; slow, and not in constant time.
"""
import base64, hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
BASE_Y = 4 * pow(5, P - 2, P) % P


def _x_of(y):
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return P - x if x & 1 else x


BASE = (_x_of(BASE_Y), BASE_Y, 1, _x_of(BASE_Y) * BASE_Y % P)


def _add(a, b):
    k, l = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    m, n = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = l - k, n - m, n + m, l + k
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _times(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point, scalar = _add(point, point), scalar >> 1
    return result


def _encode(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _hash(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


class KeyPair:
    def __init__(self, seed):
        digest = hashlib.sha512(seed).digest()
        self._scalar = int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254
        self._prefix = digest[32:]
        self._public = _encode(_times(self._scalar, BASE))

    def sign(self, message):
        nonce = _hash(self._prefix, message) % ORDER
        commitment = _encode(_times(nonce, BASE))
        challenge = _hash(commitment, self._public, message) % ORDER
        return commitment + ((nonce + challenge * self._scalar) % ORDER).to_bytes(32, "little")

    def wipe(self):
        self._scalar, self._prefix = 0, b""


def from_seed(seed):
    """The key pair of a seed in NATS's text form, `SU…`."""
    text = bytes(seed)
    raw = base64.b32decode(text + b"=" * (-len(text) % 8))
    return KeyPair(raw[2:34])
