"""A key pair on its way from a maker to a client, and the hash that closes each hand-over.

The maker computes the hash after its checks, over the very bytes to be served; the daemon verifies it
when it draws. What lies between (two pipes, a shard's memory) can therefore not change a pair unseen.
"""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class Pair:
    """One checked pair: DER PKCS#8 private key, DER SPKI public key.

    ``generation`` is the VM generation that it was made in; ``digest`` is ``handover_digest`` of the
    other fields. The representation shows no key material.
    """

    spec: str
    generation: int
    private: bytes
    public: bytes
    digest: bytes

    def __repr__(self) -> str:
        return f"<Pair {self.spec}>"

    def is_intact(self) -> bool:
        """Whether the bytes are still those the maker checked."""
        return self.digest == handover_digest(self.spec, self.generation, self.private, self.public)


def handover_digest(spec: str, generation: int, private: bytes, public: bytes) -> bytes:
    """32 bytes of SHA-256 over spec, generation, private and public bytes, each length-prefixed."""
    name = spec.encode()
    digest = hashlib.sha256(b"kpcache pair 1")
    for part in (name, generation.to_bytes(8, "big"), private, public):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()
