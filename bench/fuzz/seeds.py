"""Messages kept because they once were, or might be, read wrongly: the corpus that damage begins with."""

import msgpack

_PAIR = {"KeyId": "alias/kpcache", "KeyPairSpec": "ECC_NIST_EDWARDS25519"}
# Begins a request and stops where its input would stand.
_HEAD = b"\x94\x00\x07\xb3GenerateDataKeyPair\x91"
_SHORT = b"\x94\x00\x07\xa1m\x91"

# A whole request that must never run when it stands behind a broken message or inside one.
PLANTED: bytes = msgpack.packb([0, 4242, "GenerateDataKeyPair", [_PAIR]])

SEEDS: tuple[bytes, ...] = (
    # Sound ones, at the edges of what is allowed.
    PLANTED,
    msgpack.packb([0, 0, "kpcache.Ping", []]),
    msgpack.packb([0, 2**32 - 1, "kpcache.Ping", [{}]]),
    msgpack.packb([0, 1, "kpcache.Status", [None, None]]),
    msgpack.packb([2, "anything", []]),
    b"\x93\x02\xc0\xc0",
    b"\xdc\x00\x04\xcc\x00\xce\x00\x00\x00\x07\xd9\x0ckpcache.Ping\x90",  # every length longer than needed
    b"\xdd\x00\x00\x00\x04\xd3" + bytes(8) + b"\x05\xdb\x00\x00\x00\x01m\xdd\x00\x00\x00\x00",
    _SHORT + b"\x81\xa1a\x91\x81\xa1b\x01",  # as deep as is allowed
    _SHORT + b"\x81\xa1a\x91\x81\xa1b\x90",
    b"\x94\x00\x07\xd9\x40" + b"m" * 64 + b"\x90",
    msgpack.packb([0, 7, "m", [{str(n): n for n in range(256)}]]),
    msgpack.packb([0, 7, "DescribeKey", [{"KeyId": "\N{PILE OF POO}" * 256}]]),
    msgpack.packb([0, 7, "DescribeKey", [{"KeyId": "arn:aws:kms:local:000000000000:key/x"}]]),
    msgpack.packb([0, 7, "DescribeKey", [{"KeyId": "arn:aws:kms:\n"}]]),
    msgpack.packb([0, 7, "GenerateDataKeyPair", [_PAIR, {"wait_s": float("nan")}]]),
    msgpack.packb([0, 7, "GenerateDataKeyPair", [_PAIR, {"wait_s": 2**64 - 1}]]),
    msgpack.packb([0, 7, "Decrypt", [{"CiphertextBlob": b"\x93kpc\x01" + bytes(145)}]]),
    msgpack.packb([0, 7, "kpcache.PurgeKey", [{"KeyId": "alias/kpcache"}]]),
    # One item too many, too deep, too long, too large.
    _SHORT + b"\x91" * 6,
    _SHORT + b"\x91\x91\x91\x80",
    _SHORT + b"\xdc\x01\x01",
    _SHORT + b"\xde\xff\xff",
    _SHORT + b"\xdf\xff\xff\xff\xff",
    _SHORT + b"\xc6\xff\xff\xff\xff",
    _SHORT + b"\xdb\x00\x01\x00\x00",
    b"\x94\x00\x07\xd9\x41" + b"m" * 65 + b"\x90",
    msgpack.packb([0, 7, "m", [{}, {}, {}]]),
    # Two readings.
    _HEAD + b"\x82\xa1a\x01\xa1a\x02",
    _HEAD + b"\x81\xb1EncryptionContext\x82\xa1a\xa1b\xa1a\xa1c",
    _HEAD + b"\x82\xa1a\xa1b\xd9\x01a\xa1c",  # the same key in two lengths
    _HEAD + b"\x81\x01\x02",
    _HEAD + b"\x81\xa1a\xa2\xff\xfe",
    _HEAD + b"\x81\xa1a\xa3\xed\xa0\x80",  # a lone surrogate
    b"\x94\x00\x07\xa1\xff\x90",
    b"\x94\x00\xa1\xff\xa1m\x91\xc1",  # a msgid that cannot be read, and then a fault
    b"\x94\x00\x81\x01\x02\xa1m\x91\xc1",
    # No message.
    _SHORT + b"\xc1",
    _SHORT + b"\xd4\x05\x00",
    _SHORT + b"\xc7\x00\x05",
    _SHORT + b"\xd6\xff\x00\x00\x00\x00",
    msgpack.packb([1, 7, None, {}]),
    msgpack.packb([5, 7, "m", []]),
    msgpack.packb([False, 7, "m", []]),
    msgpack.packb([0.0, 7, "m", []]),
    msgpack.packb([True, "m", []]),
    msgpack.packb([0, -1, "m", []]),
    msgpack.packb([0, 2**32, "m", []]),
    msgpack.packb([0, True, "m", []]),
    msgpack.packb([0, 7]),
    msgpack.packb([0, 7, "m"]),
    msgpack.packb([0, 7, "m", [], 1]),
    msgpack.packb([0, 7, b"m", []]),
    msgpack.packb([0, 7, "m", {}]),
    msgpack.packb({"method": "m"}),
    b"\x90",
    b"\x80",
    b"\xc1",
    b"\xc4\x40",
    b"\xdc\x00\x05",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
)
