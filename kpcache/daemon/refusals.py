"""What a client is told who gets no pair now, and when to ask again: by the rates seen, where there are any.

All are ``ThrottlingException``s: the SDKs try those again by themselves.
"""

from typing import Final

from kpcache.errors import ThrottlingException

# Where no rate is known, as while no maker is up: makers come back within a second, as a rule.
_UNKNOWN_S: Final = 1.0
_LEAST_S, _MOST_S = 0.01, 3600.0


def dry(spec: str, again_s: float | None) -> ThrottlingException:
    """There is no pair, and none is to be expected within the caller's wait."""
    return ThrottlingException(
        f"no {spec} pair is ready; try again, or pass wait_s to wait for one",
        reason="pool_dry",
        retry_after_s=_rounded(again_s),
    )


def kept_back(spec: str, again_s: float | None) -> ThrottlingException:
    """There are pairs, for others than this user."""
    return ThrottlingException(
        f"this user has taken its share of the {spec} pool; the rest is kept for others, until new pairs are "
        "made; ask again then, or have the pool's target raised",
        reason="rate_limited",
        retry_after_s=_rounded(again_s),
    )


def too_fast(spec: str, again_s: float) -> ThrottlingException:
    """A token bucket of ``[[limits]]`` is empty."""
    return ThrottlingException(
        f"this user takes {spec} pairs faster than [[limits]] of the daemon's configuration let it; "
        "ask more slowly, or have the limit raised",
        reason="rate_limited",
        retry_after_s=_rounded(again_s),
    )


def overloaded(why: str, again_s: float | None) -> ThrottlingException:
    """A queue is full."""
    return ThrottlingException(why, reason="overloaded", retry_after_s=_rounded(again_s))


def _rounded(again_s: float | None) -> float:
    """To two digits after the point: more would tell of nothing but the estimate."""
    return round(min(max(_UNKNOWN_S if again_s is None else again_s, _LEAST_S), _MOST_S), 2)
