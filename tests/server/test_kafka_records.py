"""Records of the topic: there and back without a loss, others' records told apart, and broken ones told why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from server_builders import build_record, build_request

from kama.protocol import ChatMessageRequest, MessageType, conversation_id, encode
from kama.server.broker import Record
from kama.server.kafka.records import NODES, UUID, Place, Poison, decode_record, encode_record, foreign_uuid
from kama.server.snowflake import EPOCH_MS, NODE_MAX, Snowflake, timestamp_ms

NOW = 1_800_000_000_000
PLACE = Place("chat_message", 3, 7, NOW)
STORED_SIGNAL = '{"messageId":"PROXY","type":"start_call"}'

# What decode_frame takes: no lone surrogates, and no U+0000, which no database column holds.
_characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_texts = st.text(_characters, max_size=20)
_names = st.from_regex(r"[A-Za-z0-9_-]{1,19}", fullmatch=True)
_users = _names.map("U{}".format)
requests = st.builds(
    ChatMessageRequest,
    session_id=_texts,
    type=st.integers(0, 2),
    content=st.text(_characters),
    url=_texts,
    send_id=_users,
    send_name=_texts,
    send_avatar=_texts,
    receive_id=_users | _names.map("G{}".format),
    file_size=_texts,
    file_type=_texts,
    file_name=_texts,
    av_data=_texts,
    client_msg_id=st.none() | _texts.filter(bool),
)
places = st.builds(
    Place,
    topic=st.just("t"),
    partition=st.integers(0, 600),
    offset=st.integers(0, 2**63 - 1),
    timestamp_ms=st.just(NOW),
)


def foreign(**fields: Any) -> bytes:
    """A request as a foreign producer writes it."""
    return json.dumps({"type": 0, "send_id": "U1", "receive_id": "U2", "content": "hello", **fields}).encode()


@given(requests, st.integers(1, 2**63 - 1))
def test_what_is_written_is_read_back(request: ChatMessageRequest, uuid: int) -> None:
    record = Record(conversation_id(request.send_id, request.receive_id), request, uuid, timestamp_ms(uuid))
    key, value, headers = encode_record(record)
    assert key.decode() == record.key
    assert decode_record(value, headers, PLACE) == record


@pytest.mark.parametrize(("av_data", "ephemeral"), [(STORED_SIGNAL, False), ('{"type":"candidate"}', True)])
def test_a_call_signal_is_ephemeral_unless_it_is_one_that_is_stored(av_data: str, ephemeral: bool) -> None:
    sent = build_record(type=MessageType.AUDIO_OR_VIDEO, content="", av_data=av_data)
    _, value, headers = encode_record(sent)
    assert decode_record(value, headers, PLACE).ephemeral is ephemeral


def test_the_value_is_the_request_as_kamachat_writes_it_and_nothing_of_ours() -> None:
    _, value, headers = encode_record(build_record(content="hello", uuid=5))
    assert json.loads(value).items() >= {"type": 0, "send_id": "U1", "receive_id": "U2", "content": "hello"}.items()
    assert b"uuid" not in value
    assert headers == [(UUID, b"5")]


def test_the_key_is_the_conversation_whoever_of_the_two_writes() -> None:
    assert encode_record(build_record("U1", "U2"))[0] == encode_record(build_record("U2", "U1"))[0] == b"U1_U2"
    assert encode_record(build_record("U1", "G1"))[0] == b"G1"


# --- others' records


@given(places)
def test_a_foreign_record_has_the_same_id_whenever_it_is_read(place: Place) -> None:
    first, second = (decode_record(foreign(), [], place) for _ in range(2))
    assert first.uuid == second.uuid
    assert 0 < first.uuid < 1 << 63


def test_a_foreign_records_time_is_that_of_its_place() -> None:
    assert decode_record(foreign(), [], PLACE).accepted_ms == NOW


def test_headers_of_others_make_no_difference() -> None:
    assert decode_record(foreign(), [("trace", b"1")], PLACE) == decode_record(foreign(), [], PLACE)


@given(st.integers(0, 511), st.integers(0, 511), st.integers(0, 2**40), st.integers(0, 2**40))
def test_no_two_foreign_records_of_a_millisecond_share_an_id(
    partition: int, other_partition: int, offset: int, other_offset: int
) -> None:
    """Within what is promised: at most 4096 of a partition."""
    assume((partition, offset) != (other_partition, other_offset))
    assume(partition != other_partition or abs(offset - other_offset) < 4096)
    one, other = Place("t", partition, offset, NOW), Place("t", other_partition, other_offset, NOW)
    assert foreign_uuid(one) != foreign_uuid(other)


@given(places, st.integers(0, NODES - 1), st.integers(0, 5000))
def test_no_node_gives_the_id_of_a_foreign_record(place: Place, node: int, step: int) -> None:
    ids = Snowflake(node, clock_ns=lambda: (NOW + step % 2) * 1_000_000)
    made = [ids.next() for _ in range(3)]
    assert foreign_uuid(place) not in made
    assert NODES <= (foreign_uuid(place) >> 12 & NODE_MAX) <= NODE_MAX


@pytest.mark.parametrize("time", [-1, 0, 1_700_000_000, EPOCH_MS - 1, NOW * 1000, 2**63 - 1])
def test_foreign_records_without_a_usable_time_have_ids_of_their_own_all_the_same(time: int) -> None:
    """A producer may write no time, or seconds or microseconds where milliseconds belong."""
    uuids = [foreign_uuid(Place("t", 0, offset, time)) for offset in range(0, 3 * 4096, 512)]
    assert len(set(uuids)) == len(uuids)
    assert all(0 < uuid < 1 << 63 for uuid in uuids)


# --- broken ones


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "expected one JSON object"),
        (b"", "expected one JSON object"),
        (b"\xff\xfe", "expected one JSON object"),
        (b"[]", "expected"),
        (b"5", "expected"),
        (b'{"type":0', "expected one JSON object"),
        (b"[" * 100_000, "expected"),
        (b'{"type":"ping"}', "type: expected a chat message"),
        (b'{"type":"read","uuid":"5"}', "type: expected a chat message"),
        (foreign(type=9), "type: "),
        (foreign(type="0"), "type: "),
        (foreign(type=None), "type: "),
        (foreign(send_id="1"), "send_id: "),
        (foreign(receive_id=""), "receive_id: "),
        (foreign(content=5), "content: "),
        (foreign(url="x" * 256), "url: "),
        (foreign(client_msg_id=""), "client_msg_id: "),
        (b'{"type":0,"send_id":"U1"}', "receive_id: "),
        (foreign(type=3, av_data="no JSON"), "av_data: "),
        (foreign(type=3, receive_id="G1", av_data="{}"), "receive_id: "),
    ],
)
def test_a_record_that_is_no_message_says_why(value: bytes | None, reason: str) -> None:
    with pytest.raises(Poison) as error:
        decode_record(value, [], PLACE)
    assert str(error.value).startswith(reason)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "header", [b"", b"x", b"-1", b"0", b"1.5", b" 5", b"\xff", b"\xc2\xb2", b"9" * 25, str(1 << 63).encode()]
)
def test_an_id_in_the_header_that_is_none_is_told(header: bytes) -> None:
    with pytest.raises(Poison, match=f"message id in the header {UUID}"):
        decode_record(foreign(), [(UUID, header)], PLACE)


@given(st.binary(max_size=200), st.lists(st.tuples(st.sampled_from([UUID, "x"]), st.binary(max_size=30)), max_size=3))
def test_whatever_bytes_come_they_are_a_message_or_poison(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    try:
        record = decode_record(value, headers, PLACE)
    except Poison as reason:
        assert str(reason)
    else:
        assert 0 < record.uuid < 1 << 63


@given(requests, st.data())
def test_a_message_that_was_cut_off_is_poison(request: ChatMessageRequest, data: st.DataObject) -> None:
    whole = encode(request)
    with pytest.raises(Poison):
        decode_record(whole[: data.draw(st.integers(0, len(whole) - 1))], [], PLACE)


def test_a_place_reads_as_topic_partition_and_offset() -> None:
    assert str(PLACE) == "chat_message/3/7"
    assert build_request() == decode_record(foreign(), [], PLACE).request
