"""Everything about a key pair spec, in one table.

Names are KMS's KeyPairSpec values (DataKeyPairSpec, service model 2014-11-01), in its order. Public
keys are DER SubjectPublicKeyInfo (RFC 5280), private keys DER PKCS#8 (RFC 5958, version 0; ML-KEM in
seed form, RFC 9935). A spec that KMS knows and that cannot be made here stays in the table with the
reason, so that it is answered with ``UnsupportedOperationException`` and not as a typing error.
"""

from dataclasses import dataclass
from typing import Literal

Family = Literal["rsa", "ec", "ed25519", "ml_kem", "sm2"]

# RSA: 65537 is hard-wired. Any other exponent leaves OpenSSL's FIPS 186-5 A.1.6 path for its legacy one.
RSA_PUBLIC_EXPONENT = 65537


@dataclass(frozen=True, slots=True)
class Spec:
    """One row. ``parameter`` is the modulus length in bits (RSA), the curve (EC) or the ML-KEM number.

    ``keygen_cost_s`` is CPU seconds to make and check one pair, as measured on an EPYC core: a first
    guess for the refill plan until it has seen the machine at hand. ``target`` and ``low_water`` are
    the default pool sizes in pairs. ``pair_bytes`` is what a pair that a shard holds takes in memory: both
    DER forms, and some 300 bytes of Python's own. ``formats`` are what ``kpcache get --format`` can write.
    ``unsupported`` is empty, or says why no pair of this spec can be made.
    """

    name: str
    family: Family
    parameter: int | str
    keygen_cost_s: float
    target: int
    low_water: int
    pair_bytes: int
    formats: frozenset[str]
    unsupported: str = ""


_ALL = frozenset({"json", "pem", "der", "openssh", "jwk"})
# OpenSSH has no secp256k1 and no ML-KEM keys; RFC 8812 gives secp256k1 a JWK curve name.
_NO_SSH = frozenset({"json", "pem", "der", "jwk"})
_PLAIN = frozenset({"json", "pem", "der"})

SPECS: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        Spec("RSA_2048", "rsa", 2048, 0.065, 256, 64, 1811, _ALL),
        Spec("RSA_3072", "rsa", 3072, 0.27, 64, 16, 2515, _ALL),
        Spec("RSA_4096", "rsa", 4096, 0.70, 32, 8, 3224, _ALL),
        Spec("ECC_NIST_P256", "ec", "secp256r1", 0.0002, 256, 64, 529, _ALL),
        Spec("ECC_NIST_P384", "ec", "secp384r1", 0.0012, 128, 32, 605, _ALL),
        Spec("ECC_NIST_P521", "ec", "secp521r1", 0.0010, 128, 32, 699, _ALL),
        Spec("ECC_SECG_P256K1", "ec", "secp256k1", 0.0015, 128, 32, 523, _NO_SSH),
        Spec("SM2", "sm2", "sm2", 0.0, 0, 0, 0, _PLAIN, "cryptography makes no SM2 keys"),
        Spec("ECC_NIST_EDWARDS25519", "ed25519", "ed25519", 0.0003, 256, 64, 392, _ALL),
        Spec("ML_KEM_512", "ml_kem", 512, 0.0, 0, 0, 0, _PLAIN, "cryptography makes no ML-KEM-512 keys"),
        Spec("ML_KEM_768", "ml_kem", 768, 0.0003, 128, 32, 1592, _PLAIN),
        Spec("ML_KEM_1024", "ml_kem", 1024, 0.0004, 128, 32, 1976, _PLAIN),
    )
}

MAKEABLE: tuple[str, ...] = tuple(name for name, spec in SPECS.items() if not spec.unsupported)
