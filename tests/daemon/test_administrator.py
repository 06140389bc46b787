"""Administration of a real keyring: what each method does and refuses, and changes one after the other."""

import base64
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from kpcache.core.admin_operations import ADMIN_OPERATIONS
from kpcache.daemon import administrator
from kpcache.daemon.admin_changes import CHANGES
from kpcache.daemon.admin_lists import LISTS
from kpcache.daemon.administrator import MAX_MESSAGE_BYTES, MAX_WAITING, Caller, Change
from kpcache.daemon.dispatcher import PairOrder
from kpcache.errors import KeyUnavailableException, KpcacheError, NotFoundException
from kpcache.keyring import document
from tests.administration import ALIAS, Administration, administration
from tests.fakes import SPEC, real_clock

DAY_S = 86400.0
NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


async def second_key(it: Administration, **data: Any) -> str:
    return str((await it.call("CreateKey", data))["KeyMetadata"]["KeyId"])


async def state(it: Administration, key_id: str) -> str:
    return str(it.begin_client("DescribeKey", {"KeyId": key_id})["KeyMetadata"]["KeyState"])


def opens(it: Administration, blob: bytes) -> bool:
    try:
        return it.keyring.decrypt(blob, {}).plaintext == b"secret"
    except KpcacheError:
        return False


# --- what each method does


def test_every_method_of_the_table_is_answered_somewhere() -> None:
    others = {
        "ExportKeyring", "DescribeAlarm", "ClearAlarm", "AcknowledgeLedger", "Quiesce", "Resume", "Reload",
    }  # fmt: skip
    assert {*CHANGES, *LISTS, *(f"kpcache.{method}" for method in others)} == set(ADMIN_OPERATIONS)


@real_clock
async def test_the_alarm_is_shown_at_once_and_cleared_in_turn_by_whoever_is_told_in_the_log(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "kpcache")
    async with administration(folder) as it:
        assert it.begin("DescribeAlarm", {}) == {"Standing": True}
        assert await it.call("ClearAlarm", {}) == {"Cleared": 1}
        assert it.begin("DescribeAlarm", {}) == {"Standing": False}
        assert (await it.refusal("ClearAlarm", {})).code == "KMSInvalidStateException"
        assert (await it.refusal("ClearAlarm", {"KeyId": ALIAS})).code == "ValidationException"
        assert (await it.refusal("AcknowledgeLedger", {})).code == "KeyUnavailableException"
    assert "kpcache.ClearAlarm by uid 0, pid 4242: 1 duplicates" in caplog.text
    assert "kpcache.AcknowledgeLedger by uid 0, pid 4242 failed: ledger.db: disk I/O error" in caplog.text


@real_clock
async def test_a_key_is_made_with_its_alias_tags_and_description(folder: Path) -> None:
    async with administration(folder) as it:
        data = {
            "AliasName": "alias/app", "Description": "of the app", "KeySpec": "SYMMETRIC_DEFAULT",
            "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT", "Origin": "AWS_KMS",
            "MultiRegion": False, "BypassPolicyLockoutSafetyCheck": False,
            "Tags": [{"TagKey": "team", "TagValue": "a"}],
        }  # fmt: skip
        made = (await it.call("CreateKey", data))["KeyMetadata"]
        assert (made["KeyState"], made["Description"]) == ("Enabled", "of the app")
        assert made["CreationDate"] == it.now
        assert it.keyring.resolve("alias/app").arn == made["Arn"]
        assert it.keyring.content.revision == 2, "with its alias it is one change"
        tags = await it.call("ListResourceTags", {"KeyId": "alias/app"})
        assert tags == {"Tags": [{"TagKey": "team", "TagValue": "a"}], "Truncated": False}
        assert it.on_disk() == it.keyring.content
        bare = (await it.call("CreateKey", {}))["KeyMetadata"]
        assert (bare["Description"], bare["KeyState"]) == ("", "Enabled")


@real_clock
async def test_aliases_are_made_moved_and_deleted(folder: Path) -> None:
    async with administration(folder) as it:
        other = await second_key(it)
        assert await it.call("CreateAlias", {"AliasName": "alias/a", "TargetKeyId": it.key_id}) == {}
        assert it.keyring.resolve("alias/a").key_id == it.key_id
        assert await it.call("UpdateAlias", {"AliasName": "alias/a", "TargetKeyId": other}) == {}
        assert it.keyring.resolve("alias/a").key_id == other
        listed = await it.call("ListAliases", {"KeyId": other})
        assert [entry["AliasName"] for entry in listed["Aliases"]] == ["alias/a"]
        assert await it.call("DeleteAlias", {"AliasName": "alias/a"}) == {}
        with pytest.raises(NotFoundException):
            it.keyring.resolve("alias/a")
        assert it.on_disk() == it.keyring.content


@real_clock
async def test_a_disabled_key_neither_wraps_nor_opens_until_it_is_enabled(folder: Path) -> None:
    async with administration(folder) as it:
        blob = it.keyring.encrypt(it.keyring.resolve(ALIAS), b"secret", {}).blob
        assert await it.call("DisableKey", {"KeyId": ALIAS}) == {}
        assert (await state(it, ALIAS), opens(it, blob)) == ("Disabled", False)
        assert await it.call("EnableKey", {"KeyId": it.arn}) == {}
        assert (await state(it, ALIAS), opens(it, blob)) == ("Enabled", True)


@real_clock
async def test_a_rotated_key_wraps_with_new_material_and_opens_what_was_made_before(folder: Path) -> None:
    async with administration(folder) as it:
        key = it.keyring.resolve(ALIAS)
        before = it.keyring.encrypt(key, b"secret", {})
        assert await it.call("RotateKeyOnDemand", {"KeyId": ALIAS}) == {"KeyId": it.arn}
        after = it.keyring.encrypt(key, b"secret", {})
        assert before.material_id != after.material_id
        assert opens(it, before.blob)
        assert opens(it, after.blob)
        rotations = (await it.call("ListKeyRotations", {"KeyId": ALIAS}))["Rotations"]
        assert [entry["KeyMaterialId"] for entry in rotations] == [after.material_id]
        data = {"KeyId": ALIAS, "IncludeKeyMaterial": "ALL_KEY_MATERIAL"}
        rotations = (await it.call("ListKeyRotations", data))["Rotations"]
        assert [e["KeyMaterialId"] for e in rotations] == [before.material_id, after.material_id]


@real_clock
async def test_descriptions_and_tags_are_changed(folder: Path) -> None:
    async with administration(folder) as it:
        assert await it.call("UpdateKeyDescription", {"KeyId": ALIAS, "Description": "new"}) == {}
        described = it.begin_client("DescribeKey", {"KeyId": ALIAS})
        assert described["KeyMetadata"]["Description"] == "new"
        tags = [{"TagKey": "b", "TagValue": "2"}, {"TagKey": "a", "TagValue": "1"}]
        assert await it.call("TagResource", {"KeyId": ALIAS, "Tags": tags}) == {}
        assert (await it.call("ListResourceTags", {"KeyId": ALIAS}))["Tags"] == tags[::-1]
        assert await it.call("UntagResource", {"KeyId": ALIAS, "TagKeys": ["a", "none"]}) == {}
        assert (await it.call("ListResourceTags", {"KeyId": ALIAS}))["Tags"] == tags[:1]


@real_clock
async def test_deletion_waits_can_be_called_off_and_only_a_purge_destroys(folder: Path) -> None:
    async with administration(folder) as it:
        key_id = await second_key(it)
        key = it.keyring.resolve(key_id)
        blob = it.keyring.encrypt(key, b"secret", {}).blob
        answer = await it.call("ScheduleKeyDeletion", {"KeyId": key_id})
        assert answer == {
            "KeyId": key.arn, "DeletionDate": it.now + 30 * DAY_S, "KeyState": "PendingDeletion",
            "PendingWindowInDays": 30,
        }  # fmt: skip
        assert await it.call("CancelKeyDeletion", {"KeyId": key_id}) == {"KeyId": key.arn}
        assert await state(it, key_id) == "Disabled"
        await it.call("ScheduleKeyDeletion", {"KeyId": key_id, "PendingWindowInDays": 7})
        it.now += 7 * DAY_S - 1
        assert (await it.refusal("PurgeKey", {"KeyId": key_id})).code == "KMSInvalidStateException"
        it.now += 1
        assert not opens(it, blob)
        assert await state(it, key_id) == "PendingDeletion"
        assert it.vault.destroying[-1] is True
        assert await it.call("PurgeKey", {"KeyId": key.arn}) == {"KeyId": key.arn}
        assert it.vault.destroying[-3:] == [False, True, True]
        assert (await it.refusal("PurgeKey", {"KeyId": key_id})).code == "NotFoundException"
        assert it.on_disk() == it.keyring.content
        assert key_id not in {record.key_id for record in it.keyring.content.keys}


@pytest.mark.parametrize("hours", [8 * 24.0, 1.1, -1.1, -(20 * 365 * 24.0)])
@real_clock
async def test_days_are_not_counted_by_a_clock_that_was_set_meanwhile(folder: Path, hours: float) -> None:
    """A jump ahead would be the days that a deletion has to wait."""
    async with administration(folder) as it:
        key_id, other = await second_key(it), await second_key(it)
        await it.call("ScheduleKeyDeletion", {"KeyId": key_id, "PendingWindowInDays": 7})
        it.clock_set_s = hours * 3600
        for method, data in (("PurgeKey", {"KeyId": key_id}), ("ScheduleKeyDeletion", {"KeyId": other})):
            error = await it.refusal(method, data)
            assert error.code == "KMSInvalidStateException"
            assert f"The clock was set by {hours:+.1f} hours since this daemon's start" in error.message
        it.clock_set_s = 0.9 * 3600
        await it.call("CancelKeyDeletion", {"KeyId": key_id})
        await it.call("ScheduleKeyDeletion", {"KeyId": key_id, "PendingWindowInDays": 7})
        it.now += 7 * DAY_S
        assert await it.call("PurgeKey", {"KeyId": key_id})


def test_a_machine_that_was_suspended_has_no_clock_that_was_set() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= administrator.uptime() <= time.clock_gettime(time.CLOCK_BOOTTIME)


@real_clock
async def test_an_export_is_imported_elsewhere_and_told_to_be_safe(
    tmp_path: Path,
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for each in folders:
        each.mkdir(mode=0o700)
    async with administration(folders[0]) as one, administration(folders[1]) as two:
        await second_key(one, AliasName="alias/app")
        blob = one.keyring.encrypt(one.keyring.resolve("alias/app"), b"secret", {}).blob
        export = await one.call("ExportKeyring", {})
        content = replace(one.keyring.content, reserve_secret=b"")
        assert document.decode(export["KeyringDocument"]) == content
        assert export["Revision"] == one.keyring.content.revision
        assert one.keyring.content.exported_revision == 0  # the command has yet to write its file
        assert await one.call("MarkExported", {"Revision": export["Revision"]}) == {}
        assert one.keyring.content.exported_revision == export["Revision"]
        assert one.on_disk() == one.keyring.content
        done = await two.call("ImportKeyring", {"KeyringDocument": export["KeyringDocument"]})
        assert set(done["KeysAdded"]) == {key.key_id for key in one.keyring.content.keys}
        assert done["MaterialsAdded"] == []
        assert (done["AliasesAdded"], done["AliasesKept"]) == (["alias/app"], [ALIAS])
        assert opens(two, blob)
        assert two.on_disk() == two.keyring.content


@real_clock
async def test_the_methods_of_every_client_are_answered_too(folder: Path) -> None:
    async with administration(folder) as it:
        assert (await it.call("Status")) == {"status": "here"}
        assert (await it.call("Ping"))["MaxMessageBytes"] == MAX_MESSAGE_BYTES
        assert it.begin_client("DescribeKey", {"KeyId": ALIAS})["KeyMetadata"]["Arn"] == it.arn
        order = it.begin_client("GenerateDataKeyPair", {"KeyId": ALIAS, "KeyPairSpec": SPEC})
        assert isinstance(order, PairOrder)
        assert (await it.refusal("Purge", {})).code == "UnsupportedOperationException"


# --- what is refused

REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    *(
        ("CreateKey", {member: value}, "UnsupportedOperationException", member)
        for member, value in {
            "KeySpec": "RSA_2048", "CustomerMasterKeySpec": "HMAC_256", "KeyUsage": "SIGN_VERIFY",
            "Origin": "EXTERNAL", "MultiRegion": True, "Policy": "{}", "CustomKeyStoreId": "cks-1",
            "XksKeyId": "1", "BypassPolicyLockoutSafetyCheck": True,
        }.items()
    ),
    ("CreateKey", {"AliasName": ALIAS}, "AlreadyExistsException", ALIAS),
    ("CreateKey", {"AliasName": "app"}, "ValidationException", "alias/"),
    ("CreateKey", {"Tags": [{"TagKey": "a", "TagValue": v} for v in "xy"]}, "TagException", "Duplicate tag"),
    ("CreateKey", {"Name": "x"}, "ValidationException", "Unknown member"),
    ("CreateAlias", {"AliasName": ALIAS, "TargetKeyId": ALIAS}, "AlreadyExistsException", ALIAS),
    ("CreateAlias", {"AliasName": "alias/aws/x", "TargetKeyId": ALIAS}, "InvalidAliasNameException", ""),
    ("CreateAlias", {"AliasName": "alias/a", "TargetKeyId": NOWHERE}, "NotFoundException", NOWHERE),
    ("UpdateAlias", {"AliasName": "alias/a", "TargetKeyId": ALIAS}, "NotFoundException", "alias/a"),
    ("DeleteAlias", {"AliasName": "alias/a"}, "NotFoundException", "alias/a"),
    ("DeleteAlias", {"AliasName": ALIAS}, "KMSInvalidStateException", "the next start would fail"),
    ("EnableKey", {"KeyId": NOWHERE}, "NotFoundException", NOWHERE),
    ("DisableKey", {"KeyId": "alias/a"}, "NotFoundException", "alias/a"),
    ("EnableKey", {}, "ValidationException", "keyId"),
    ("RotateKeyOnDemand", {"KeyId": "alias/a"}, "NotFoundException", "alias/a"),
    ("CancelKeyDeletion", {"KeyId": ALIAS}, "KMSInvalidStateException", "not pending deletion"),
    ("ScheduleKeyDeletion", {"KeyId": ALIAS, "PendingWindowInDays": 6}, "ValidationException", "than or"),
    ("TagResource", {"KeyId": ALIAS, "Tags": [{"TagKey": "aws:x", "TagValue": ""}]}, "TagException", ""),
    ("PurgeKey", {"KeyId": ALIAS}, "ValidationException", "no alias"),
    ("PurgeKey", {"KeyId": f"arn:aws:kms:local:000000000000:{ALIAS}"}, "ValidationException", "no alias"),
    ("PurgeKey", {"KeyId": NOWHERE}, "NotFoundException", NOWHERE),
    ("MarkExported", {"Revision": 2}, "ValidationException", "Revision"),
    ("ImportKeyring", {"KeyringDocument": b"SECRET"}, "ValidationException", "not a keyring"),
    ("ImportKeyring", {"KeyringDocument": b'{"format": "SECRET"}'}, "ValidationException", "not a keyring"),
    ("ExportKeyring", {"KeyId": ALIAS}, "ValidationException", "Unknown member"),
    ("ListKeys", {"ResourceOwners": ["OTHER_ACCOUNTS_VIA_RAM"]}, "UnsupportedOperationException", "SELF"),
    ("ListKeys", {"Limit": 0}, "ValidationException", "limit"),
    ("ListAliases", {"KeyId": NOWHERE}, "NotFoundException", NOWHERE),
    ("ListKeyRotations", {"KeyId": "alias/a"}, "NotFoundException", "alias/a"),
    ("ListResourceTags", {"KeyId": "alias/a"}, "NotFoundException", "alias/a"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "data", "code", "told"), REFUSED, ids=[f"{r[0]} {r[1]}"[:60] for r in REFUSED]
)
@real_clock
async def test_a_refusal_says_why_and_changes_nothing(
    folder: Path, method: str, data: dict[str, Any], code: str, told: str
) -> None:
    async with administration(folder) as it:
        before = it.keyring.content
        error = await it.refusal(method, data)
        assert (error.code, it.keyring.content) == (code, before)
        assert told in error.message
        assert "SECRET" not in error.message
        assert error.__cause__ is None
        assert it.on_disk() == before


@real_clock
async def test_no_method_takes_options(folder: Path) -> None:
    async with administration(folder) as it:
        for method in ("ListKeys", "ExportKeyring", "CreateKey"):
            assert (await it.refusal(method, {}, {"wait_s": 1})).code == "ValidationException"
            assert await it.call(method, {}, {})


@real_clock
async def test_the_key_that_the_configuration_names_is_never_purged(folder: Path) -> None:
    async with administration(folder) as it:
        key_id = it.key_id
        await it.call("ScheduleKeyDeletion", {"KeyId": ALIAS})
        it.now += 31 * DAY_S
        error = await it.refusal("PurgeKey", {"KeyId": key_id})
        assert error.code == "KMSInvalidStateException"
        assert "UpdateAlias" in error.message
        await it.call("UpdateAlias", {"AliasName": ALIAS, "TargetKeyId": await second_key(it)})
        assert await it.call("PurgeKey", {"KeyId": key_id})
        assert it.on_disk() == it.keyring.content  # with its alias: the next start succeeds


@real_clock
async def test_while_the_daemon_stops_nothing_is_administrated(folder: Path) -> None:
    async with administration(folder) as it:
        it.gate.draining = True
        for method in ADMIN_OPERATIONS:
            error = await it.refusal(method.removeprefix("kpcache."), {})
            assert (error.code, error.reason) == ("ThrottlingException", "draining")
        assert await it.call("Status") == {"status": "here"}


# --- pages


@real_clock
async def test_pages_hold_every_entry_once_in_order(folder: Path) -> None:
    async with administration(folder) as it:
        for number in range(6):
            await second_key(it, AliasName=f"alias/{number}")
            await it.call("RotateKeyOnDemand", {"KeyId": ALIAS})
        tags = [{"TagKey": f"ключ {n}\n", "TagValue": ""} for n in range(7)]
        await it.call("TagResource", {"KeyId": ALIAS, "Tags": tags})
        for method, member, data in (
            ("ListKeys", "Keys", {}),
            ("ListAliases", "Aliases", {}),
            ("ListKeyRotations", "Rotations", {"KeyId": ALIAS, "IncludeKeyMaterial": "ALL_KEY_MATERIAL"}),
            ("ListResourceTags", "Tags", {"KeyId": ALIAS}),
        ):
            whole = await it.call(method, data)
            assert (whole["Truncated"], "NextMarker" in whole, len(whole[member])) == (False, False, 7)
            for limit in (1, 3, 7):
                pages: list[list[dict[str, Any]]] = []
                marker: dict[str, str] = {}
                while True:
                    page = await it.call(method, {**data, **marker, "Limit": limit})
                    pages.append(page[member])
                    if not page["Truncated"]:
                        break
                    marker = {"Marker": page["NextMarker"]}
                assert [entry for page in pages for entry in page] == whole[member]
                assert {len(page) for page in pages[:-1]} <= {limit}


@real_clock
async def test_a_list_goes_on_when_what_its_page_ended_with_is_gone(folder: Path) -> None:
    async with administration(folder) as it:
        for number in range(4):
            await it.call("CreateAlias", {"AliasName": f"alias/{number}", "TargetKeyId": ALIAS})
        page = await it.call("ListAliases", {"Limit": 2})
        for entry in page["Aliases"]:
            await it.call("DeleteAlias", {"AliasName": entry["AliasName"]})
        rest = await it.call("ListAliases", {"Marker": page["NextMarker"]})
        assert [e["AliasName"] for e in rest["Aliases"]] == ["alias/2", "alias/3", ALIAS]


@real_clock
async def test_only_a_marker_of_the_same_list_goes_on(folder: Path) -> None:
    async with administration(folder) as it:
        other = await second_key(it)
        for key_id in (ALIAS, other):
            tags = [{"TagKey": name, "TagValue": ""} for name in "ab"]
            await it.call("TagResource", {"KeyId": key_id, "Tags": tags})
        keys = (await it.call("ListKeys", {"Limit": 1}))["NextMarker"]
        tags_marker = (await it.call("ListResourceTags", {"KeyId": ALIAS, "Limit": 1}))["NextMarker"]
        garbage = [
            "x",
            "ÿ",
            "====",
            base64.b64encode(b"\xff\xff").decode(),
            base64.b64encode(b"Tags").decode(),
        ]
        for marker in (*garbage, keys):
            error = await it.refusal("ListResourceTags", {"KeyId": ALIAS, "Marker": marker})
            assert error.code == "InvalidMarkerException", marker
        for method, data in (("ListKeys", {}), ("ListResourceTags", {"KeyId": other})):
            error = await it.refusal(method, {**data, "Marker": tags_marker})
            assert error.code == "InvalidMarkerException"


# --- one change at a time


@real_clock
async def test_changes_are_made_one_by_one_in_the_order_in_which_they_were_asked_for(folder: Path) -> None:
    async with administration(folder) as it:
        it.vault.disk.clear()
        last = it.keyring.content.revision
        seen: list[str] = []

        async def settle(change: Change) -> None:
            await change.answer()
            seen.append(it.keyring.content.keys[0].description)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                change = it.begin("UpdateKeyDescription", {"KeyId": ALIAS, "Description": str(number)})
                assert isinstance(change, Change)
                nursery.start_soon(settle, change)
            await trio.testing.wait_all_tasks_blocked()
            assert (seen, it.keyring.content.revision) == ([], last)  # nothing before it is durable
            it.vault.disk.set()
        assert it.keyring.content.keys[0].description == "19"
        assert it.keyring.content.revision == last + 20
        assert it.vault.most_under_way == 1


@real_clock
async def test_only_so_many_changes_wait_and_looking_waits_for_none(folder: Path) -> None:
    async with administration(folder) as it:
        it.vault.disk.clear()
        taken: list[Change] = []
        refusals: list[KpcacheError] = []
        first = it.begin("RotateKeyOnDemand", {"KeyId": ALIAS})
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5000):
            try:
                change = it.begin("RotateKeyOnDemand", {"KeyId": ALIAS})
            except KpcacheError as error:
                refusals.append(error)
            else:
                assert isinstance(change, Change)
                taken.append(change)
        assert (len(taken), len(refusals)) == (MAX_WAITING, 5000 - MAX_WAITING)
        assert {(error.code, error.reason) for error in refusals} == {("ThrottlingException", "overloaded")}
        assert refusals[0].retry_after_s is not None
        assert len((await it.call("ListKeyRotations", {"KeyId": ALIAS}))["Rotations"]) == 0
        it.vault.disk.set()
        assert isinstance(first, Change)
        for change in (first, *taken):
            assert await change.answer() == {"KeyId": it.arn}
        rotations = await it.call("ListKeyRotations", {"KeyId": ALIAS})
        assert len(rotations["Rotations"]) == 1 + MAX_WAITING


@real_clock
async def test_a_change_that_has_begun_is_carried_out_and_one_that_has_not_is_forgotten(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with administration(folder) as it:
        caplog.clear()
        it.vault.disk.clear()
        async with trio.open_nursery() as nursery:
            for method in ("DisableKey", "RotateKeyOnDemand", "ExportKeyring"):
                data = {} if method == "ExportKeyring" else {"KeyId": ALIAS}
                nursery.start_soon(it.call, method, data)
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert it.keyring.resolve(ALIAS).state == "Enabled"
        it.vault.disk.set()
        await it.call("UpdateKeyDescription", {"KeyId": ALIAS, "Description": "after them"})
        assert it.keyring.resolve(ALIAS).state == "Disabled"
        assert len(it.keyring.content.keys[0].materials) == 1
        assert it.on_disk() == it.keyring.content
    assert [line.partition(" ")[0] for line in caplog.messages] == [
        "kpcache.DisableKey", "kpcache.UpdateKeyDescription",
    ]  # fmt: skip


@real_clock
async def test_the_end_of_the_daemon_waits_for_the_change_under_way_and_adopts_it(folder: Path) -> None:
    it = Administration(folder)
    it.vault.disk.clear()
    change = it.begin("DisableKey", {"KeyId": ALIAS})
    late = it.begin("RotateKeyOnDemand", {"KeyId": ALIAS})
    ended = False

    async def live() -> None:
        nonlocal ended
        try:
            await it.administrator.run()
        finally:
            ended = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        was_ended = ended
        it.vault.disk.set()
    assert not was_ended
    assert it.keyring.resolve(ALIAS).state == "Disabled"
    assert isinstance(change, Change)
    assert await change.answer() == {}
    assert isinstance(late, Change)
    assert len(it.on_disk().keys[0].materials) == 1


# --- a disk that fails


@pytest.mark.parametrize("after_writing", [False, True])
@real_clock
async def test_after_a_failed_write_what_is_on_disk_is_in_force(
    folder: Path, caplog: pytest.LogCaptureFixture, after_writing: bool
) -> None:
    async with administration(folder) as it:
        it.vault.failure = KeyUnavailableException("keyring.json: No space left on device; make room")
        it.vault.fails_after_writing = after_writing
        error = await it.refusal("DisableKey", {"KeyId": ALIAS})
        assert error.code == "KeyUnavailableException"
        assert "make room" in error.message
        assert it.keyring.content == it.on_disk()
        assert it.keyring.resolve(ALIAS).state == ("Disabled" if after_writing else "Enabled")
        assert f"kpcache.DisableKey by uid 0, pid 4242 failed: {error.message}" in caplog.messages
        it.vault.failure = None
        assert await it.call("RotateKeyOnDemand", {"KeyId": it.key_id}) if not after_writing else True
        assert await it.call("EnableKey", {"KeyId": ALIAS}) == {}


@real_clock
async def test_a_defect_in_a_change_is_logged_without_its_message_and_the_next_one_is_made(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with administration(folder) as it:
        it.vault.failure = ValueError("a SECRET that it tripped over")
        error = await it.refusal("DisableKey", {"KeyId": ALIAS})
        assert error.code == "KMSInternalException"
        assert "SECRET" not in error.message
        it.vault.failure = None
        assert await it.call("DisableKey", {"KeyId": ALIAS}) == {}
    assert "ValueError" in caplog.text
    assert "SECRET" not in caplog.text


@real_clock
async def test_a_file_that_another_hand_has_changed_is_not_written_over(folder: Path) -> None:
    async with administration(folder) as it:
        await it.call("RotateKeyOnDemand", {"KeyId": ALIAS})
        path = folder / "keyring.json"
        theirs = path.read_bytes() + b"\n"
        path.write_bytes(theirs)
        error = await it.refusal("DisableKey", {"KeyId": ALIAS})
        assert error.code == "KeyUnavailableException"
        assert "stop the daemon" in error.message
        assert path.read_bytes() == theirs
        assert await state(it, ALIAS) == "Enabled"


# --- the log


@real_clock
async def test_every_change_is_told_in_one_line_with_who_and_which_key_and_nothing_more(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with administration(folder) as it:
        caplog.clear()
        private = "a\nPRIVATE note"
        await it.call("UpdateKeyDescription", {"KeyId": ALIAS, "Description": private})
        await it.call("TagResource", {"KeyId": ALIAS, "Tags": [{"TagKey": private, "TagValue": private}]})
        await it.call("CreateAlias", {"AliasName": "alias/a", "TargetKeyId": ALIAS}, caller=Caller(65534, 0))
        await it.call("DeleteAlias", {"AliasName": "alias/a"}, caller=Caller(1000, 7))
        export = await it.call("ExportKeyring")
        await it.call("ImportKeyring", {"KeyringDocument": export["KeyringDocument"]})
        await it.refusal("DisableKey", {"KeyId": NOWHERE})
        await it.call("ListKeys")
        secret = base64.b64encode(it.keyring.content.keys[0].materials[0].secret).decode()
        arn = it.arn
    root = "by uid 0, pid 4242"
    assert caplog.messages == [
        f"kpcache.UpdateKeyDescription {root}: {arn}",
        f"kpcache.TagResource {root}: {arn}",
        f"kpcache.CreateAlias by uid unknown, pid unknown: alias/a, {arn}",
        f"kpcache.DeleteAlias by uid 1000, pid 7: alias/a, {arn}",
        f"kpcache.ExportKeyring {root}: revision 5, 1 keys",
        f"kpcache.ImportKeyring {root}: 0 keys added, 0 materials added to keys that were here",
        f"kpcache.DisableKey {root} refused: NotFoundException",
    ]
    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert "PRIVATE" not in caplog.text
    assert secret not in caplog.text


@real_clock
async def test_a_large_import_is_told_in_one_short_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for each in folders:
        each.mkdir(mode=0o700)
    async with administration(folders[0]) as one, administration(folders[1]) as two:
        for _ in range(20):
            await second_key(one)
        export = await one.call("ExportKeyring")
        caplog.set_level(logging.INFO)
        caplog.clear()
        done = await two.call("ImportKeyring", {"KeyringDocument": export["KeyringDocument"]})
        assert len(done["KeysAdded"]) == 21
    (line,) = caplog.messages
    assert "21 keys added" in line
    assert line.endswith("and 18 more")
    assert len(line) < 1000
