"""The status shows what an operator would look for."""

from types import SimpleNamespace
from typing import cast

from kpcache.daemon.alarm import Alarm
from kpcache.daemon.dispatcher import Gate
from kpcache.daemon.floor import Floor
from kpcache.daemon.ledger import Ledger
from kpcache.daemon.pools import PoolPlan
from kpcache.daemon.status import StatusMaker
from kpcache.daemon.supervisor import Supervisor
from tests.fakes import SPEC, FakeShards, mock_clock, no_reserve


@mock_clock
async def test_it_shows_the_pools_the_clients_the_ledger_and_the_alarm() -> None:
    shards, gate = FakeShards({SPEC: PoolPlan(8, 2)}), Gate()
    ledger = cast(Ledger, SimpleNamespace(status=lambda: {"tags": 5}))
    alarm = cast(Alarm, SimpleNamespace(status=lambda: None))
    manners = {"makers": 2, "allowed": 1, "holding_back": True}
    floor = cast(Floor, SimpleNamespace(manners=manners))
    supervisor = cast(Supervisor, SimpleNamespace(workers=[]))
    maker = StatusMaker(
        shards.stock,
        supervisor,
        gate,
        shards.stock.fence,
        floor,
        ledger,
        alarm,
        no_reserve(shards.stock),
        dict,
        "full",
        lambda: {"file": "/a/file"},
    )
    maker.watch_clients(lambda: 3, lambda: {"cut": 2, "notifications": 5})
    before = maker.status()
    assert (before["ready"], before["full"], before["draining"]) == (False, False, False)
    assert maker.too_empty() == f"{SPEC} has 0 of the 8 pairs of daemon.ready_level full"
    shards.fill(8)
    assert maker.too_empty() == ""
    gate.draining = True
    status = maker.status()
    assert (status["ready"], status["full"], status["draining"]) == (True, True, True)
    assert status["pools"][SPEC]["ready"] + status["pools"][SPEC]["held"] == 8
    assert (status["connections"], status["clients"]) == (3, {"cut": 2, "notifications": 5})
    assert (status["refill"], status["config"]) == (manners, {"file": "/a/file"})
    assert (status["ledger"], status["alarm"], status["issuing"]) == ({"tags": 5}, None, True)
    assert (status["reserve"]["on"], status["reserve"]["why"]) == (False, "none is wanted here")
    gate.ledger_down = True
    assert not maker.status()["issuing"]
