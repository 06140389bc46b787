"""The table has KMS's key pair specs, in its order, and values that the rest can work with."""

import pytest

from kpcache.core.specs import MAKEABLE, RSA_PUBLIC_EXPONENT, SPECS, Spec

# DataKeyPairSpec in the KMS service model 2014-11-01.
KMS_ORDER = [
    "RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256",
    "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "SM2",
    "ECC_NIST_EDWARDS25519", "ML_KEM_512", "ML_KEM_768", "ML_KEM_1024",
]  # fmt: skip


def test_it_has_every_spec_of_kms_in_its_order() -> None:
    assert list(SPECS) == KMS_ORDER
    assert all(name == spec.name for name, spec in SPECS.items())


def test_what_cannot_be_made_says_why_and_has_no_pool() -> None:
    for spec in SPECS.values():
        assert (spec.name in MAKEABLE) == (not spec.unsupported)
        if spec.unsupported:
            assert spec.target == spec.low_water == 0
    assert set(SPECS) - set(MAKEABLE) == {"SM2", "ML_KEM_512"}


def test_no_other_exponent_is_offered() -> None:
    assert RSA_PUBLIC_EXPONENT == 65537


@pytest.mark.parametrize("spec", [SPECS[name] for name in MAKEABLE], ids=lambda spec: spec.name)
def test_a_pool_has_sound_watermarks_and_a_cost(spec: Spec) -> None:
    assert 0 < spec.low_water < spec.target
    assert spec.keygen_cost_s > 0
    assert {"json", "pem", "der"} <= spec.formats


def test_rsa_costs_more_the_longer_it_is_and_more_than_anything_else() -> None:
    rsa = [spec.keygen_cost_s for spec in SPECS.values() if spec.family == "rsa"]
    others = [spec.keygen_cost_s for spec in SPECS.values() if spec.family != "rsa"]
    assert rsa == sorted(rsa)
    assert min(rsa) > max(others)
