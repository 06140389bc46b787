"""What is answered over HTTP, to whom, and in which state of the daemon."""

from collections.abc import Iterator

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric

from kpcache.daemon.dispatcher import Gate
from kpcache.daemon.exposition import Exposition
from kpcache.daemon.http_pages import Answer, Pages, Readiness
from tests.fakes import mock_clock

LOOPBACK = "127.0.0.1"


def families() -> Iterator[Metric]:
    yield GaugeMetricFamily("kpcache_issuing", "Help.", 1)


class Site:
    def __init__(self) -> None:
        self.gate = Gate()
        self.too_empty = ""
        self.readiness = Readiness(self.gate, lambda: self.too_empty)
        self.pages = Pages(Exposition(families), self.readiness, ["scrape.example"])

    async def get(
        self, path: str, method: str = "GET", host: str = "localhost", address: str = LOOPBACK
    ) -> Answer:
        return await self.pages.answer(method.encode(), path.encode(), host, address)


def text(answer: Answer) -> str:
    return b"".join(answer.blocks).decode()


@mock_clock
async def test_the_three_paths_and_what_else_there_is() -> None:
    site = Site()
    site.readiness.is_serving = True
    metrics = await site.get("/metrics")
    assert (metrics.status, text(metrics)) == (
        200,
        "# HELP kpcache_issuing Help.\n# TYPE kpcache_issuing gauge\nkpcache_issuing 1.0\n",
    )
    assert metrics.content_type == "text/plain; version=0.0.4; charset=utf-8"
    for path in ("/livez", "/readyz", "/livez?verbose", "/readyz?"):
        answer = await site.get(path)
        assert (answer.status, text(answer)) == (200, "ok\n")
    for path in (
        "/",
        "/metrics/",
        "//metrics",
        "/../metrics",
        "/METRICS",
        "http://localhost/metrics",
        "*",
        "",
    ):
        answer = await site.get(path)
        assert (answer.status, text(answer)) == (
            404,
            "there is nothing here; see /metrics, /livez and /readyz\n",
        )


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "get", "PRI"])
@pytest.mark.parametrize("path", ["/metrics", "/livez", "/nothing"])
def test_other_methods_are_told_which_there_are(method: str, path: str) -> None:
    @mock_clock
    async def ask() -> None:
        answer = await Site().get(path, method)
        assert (answer.status, answer.allow) == (405, "GET, HEAD")

    ask()


@mock_clock
async def test_a_name_that_is_not_known_is_told_how_to_be() -> None:
    site = Site()
    for path in ("/metrics", "/livez", "/readyz", "/"):
        answer = await site.get(path, host="evil.example:9743")
        assert answer.status == 421
        assert "[metrics] hosts" in text(answer)
        assert "evil" not in text(answer)
        assert "kpcache_issuing" not in text(answer)
    assert (await site.get("/livez", host="Scrape.example:9743")).status == 200
    assert (await site.get("/livez", host="", address="")).status == 200
    assert (await site.get("/livez", host="")).status == 421


@mock_clock
async def test_ready_is_what_serves_issues_and_has_pairs() -> None:
    site = Site()

    async def readiness() -> tuple[int, str]:
        answer = await site.get("/readyz")
        assert text(answer).count("\n") == 1
        return answer.status, text(answer)

    status, why = await readiness()
    assert (status, why.partition(":")[0]) == (503, "starting")
    site.readiness.is_serving = True
    site.too_empty = "RSA_2048 has 3 of the 64 pairs of daemon.ready_level low_water"
    assert await readiness() == (503, f"not ready: {site.too_empty}\n")
    site.too_empty = ""
    assert await readiness() == (200, "ok\n")
    for state, word in (
        ("ledger_down", "the ledger"),
        ("quiesced", "kpcache resume"),
        ("alarm", "a duplicate"),
    ):
        setattr(site.gate, state, True)
        status, why = await readiness()
        assert (status, why.partition(":")[0]) == (503, "not issuing")
        assert word in why
    site.gate.draining = True
    status, why = await readiness()
    assert (status, why.partition(":")[0]) == (503, "draining")
    assert (await site.get("/livez")).status == 200  # it lives all the while: a restart would cure nothing
    assert (await site.get("/metrics")).status == 200


@mock_clock
async def test_a_fault_in_the_metrics_is_logged_and_told_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> Iterator[Metric]:
        yield from families()
        raise RuntimeError("SECRET")

    site = Site()
    pages = Pages(Exposition(broken), site.readiness, [])
    answer = await pages.answer(b"GET", b"/metrics", "localhost", LOOPBACK)
    assert (answer.status, answer.content_type) == (500, "text/plain; charset=utf-8")
    assert "see the daemon's log" in text(answer)
    assert "defect in rendering the metrics: RuntimeError at broken" in caplog.text
    assert "SECRET" not in text(answer) + caplog.text
    assert (await pages.answer(b"GET", b"/livez", "localhost", LOOPBACK)).status == 200
