"""The words on the wire: any bytes give a frame or a refusal that says what was wrong."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kama.errors import BadParameter, CloseCode, Code, Forbidden, KamaError, RateLimited, TooLarge
from kama.protocol import (
    AckFrame,
    AuthFrame,
    BadFrame,
    ChatMessageRequest,
    DeliveredFrame,
    ErrorFrame,
    ExpiringFrame,
    Message,
    MessageStatus,
    MessageType,
    PingFrame,
    PongFrame,
    PullFrame,
    ReadFrame,
    StatusFrame,
    SystemFrame,
    build_message,
    conversation_id,
    decode_frame,
    decode_request,
    encode,
    envelope,
    error_envelope,
    error_frame,
    is_group_id,
    is_stored_signal,
    is_user_id,
    local_time,
    participants,
)
from kama.refusals import describe

VALID: dict[str, Any] = {"type": 0, "content": "hi", "send_id": "U1", "receive_id": "U2"}
DEEP = b"[" * 50_000


def as_json(changes: dict[str, Any] | None = None, without: str = "") -> bytes:
    frame = {**VALID, **(changes or {})}
    frame.pop(without, None)
    return json.dumps(frame).encode()


def refusal(data: bytes) -> BadFrame:
    with pytest.raises(BadFrame) as caught:
        decode_frame(data)
    return caught.value


# --- ids and conversations

ids = st.from_regex(r"U[A-Za-z0-9_-]{1,19}", fullmatch=True)


@pytest.mark.parametrize("value", ["U1", "U_", "U-", "U" + "x" * 19])
def test_a_user_id_is_u_and_one_to_nineteen_more(value: str) -> None:
    assert is_user_id(value)
    assert is_group_id("G" + value[1:])


@pytest.mark.parametrize("value", ["", "U", "u1", "G1", "U" + "x" * 20, "U1\n", "U 1", "Uü", "U1:", "U١", " U1"])
def test_anything_else_is_no_user_id(value: str) -> None:
    assert not is_user_id(value)


def test_a_pair_is_one_conversation_whoever_sends() -> None:
    """KamaChat defect 29: Kafka mode did not sort the pair, and half the readers looked elsewhere."""
    assert conversation_id("U2", "U1") == conversation_id("U1", "U2") == "U1_U2"


def test_a_group_is_its_own_conversation() -> None:
    assert conversation_id("U1", "G7") == "G7"
    assert participants("G7") is None


@given(ids, ids)
def test_a_conversation_names_its_two_users(one: str, two: str) -> None:
    assert participants(conversation_id(one, two)) == tuple(sorted((one, two)))


short = st.from_regex(r"U[U_1]{1,3}", fullmatch=True)


@given(short, short, short, short)
def test_two_pairs_never_share_a_conversation(a: str, b: str, c: str, d: str) -> None:
    if {a, b} != {c, d}:
        assert conversation_id(a, b) != conversation_id(c, d)


@given(ids, ids)
def test_a_conversation_fits_its_column(one: str, two: str) -> None:
    assert len(conversation_id(one, two)) <= 41


@pytest.mark.parametrize("value", ["", "U1", "U1_", "_U2", "U1_G2", "X_Y", "U1:U2:U3"])
def test_what_names_no_two_users_has_no_participants(value: str) -> None:
    assert participants(value) is None


# --- frames that are good


def test_the_required_fields_are_enough() -> None:
    assert decode_frame(b'{"type":0,"send_id":"U1","receive_id":"G2"}') == ChatMessageRequest(
        type=0, send_id="U1", receive_id="G2"
    )


def test_unknown_keys_are_accepted() -> None:
    """A client of tomorrow, or of KamaChat's next version."""
    assert decode_frame(as_json({"extra": [1, {"deep": None}], "content": "x"})) == decode_frame(
        as_json({"content": "x"})
    )


def test_a_null_client_msg_id_is_none() -> None:
    frame = decode_frame(as_json({"client_msg_id": None}))
    assert isinstance(frame, ChatMessageRequest)
    assert frame.client_msg_id is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type":"auth","token":"t"}', AuthFrame("t")),
        ('{"type":"delivered","uuid":"1"}', DeliveredFrame("1")),
        ('{"type":"read","uuid":"1"}', ReadFrame("1")),
        ('{"type":"pull","conversation":"U1_U2"}', PullFrame("U1_U2", 0, 50)),
        ('{"type":"pull","conversation":"G1","after_seq":7,"limit":200}', PullFrame("G1", 7, 200)),
        ('{"type":"ping"}', PingFrame()),
        ('{"more":1,"type":"ping"}', PingFrame()),
    ],
)
def test_a_control_frame_is_known_by_its_type(text: str, expected: Any) -> None:
    assert decode_frame(text.encode()) == expected


LONGEST = {
    "session_id": 20, "content": 50_000, "url": 255, "send_name": 20, "send_avatar": 255,
    "file_size": 20, "file_type": 50, "file_name": 50, "client_msg_id": 64,
}  # fmt: skip


@pytest.mark.parametrize(("field", "longest"), LONGEST.items())
def test_a_text_may_be_as_long_as_its_column(field: str, longest: int) -> None:
    assert getattr(decode_frame(as_json({field: "ü" * longest})), field) == "ü" * longest


# --- frames that are not


@pytest.mark.parametrize(("field", "longest"), [item for item in LONGEST.items() if item[0] != "content"])
def test_a_text_that_is_too_long_is_refused_by_name(field: str, longest: int) -> None:
    error = refusal(as_json({field: "x" * (longest + 1)}))
    assert error.field == field
    assert f"length <= {longest}" in error.message


@pytest.mark.parametrize("field", ["type", "send_id", "receive_id"])
def test_a_missing_field_is_refused_by_name(field: str) -> None:
    """KamaChat defect 6: an empty receive_id ended the process."""
    error = refusal(as_json(without=field))
    assert (error.field, error.message) == (field, f"expected the field {field}, got none")


@pytest.mark.parametrize(
    ("field", "value", "came"),
    [
        ("type", True, "true"),
        ("type", None, "null"),
        ("type", 0.0, "the number 0.0"),
        ("type", 1.5, "the number 1.5"),
        ("type", 4, "the number 4"),
        ("type", -1, "the number -1"),
        ("type", 10**18, "a very large number"),
        ("type", 10**30, "a very large number"),
        ("type", [0], "an array of 1"),
        ("type", {}, "an object"),
        ("content", 5, "the number 5"),
        ("content", None, "null"),
        ("content", ["a", "b"], "an array of 2"),
        ("send_id", "", "''"),
        ("send_id", "G1", "'G1'"),
        ("send_id", "U1\n", r"'U1\n'"),
        ("send_id", "U" + "x" * 30, "a string of 31 characters"),
        ("receive_id", "", "''"),
        ("receive_id", "X1", "'X1'"),
        ("receive_id", 7, "the number 7"),
        ("client_msg_id", "", "''"),
        ("client_msg_id", 5, "the number 5"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected_and_what_came(field: str, value: Any, came: str) -> None:
    error = refusal(as_json({field: value}))
    assert error.field == field
    assert error.message.startswith("expected ")
    assert error.message.endswith(f", got {came}")


def test_a_number_beyond_all_bounds_is_refused_by_name() -> None:
    for number in (b"9" * 5000, b"1e999"):
        error = refusal(b'{"send_id":"U1","receive_id":"U2","type":' + number + b"}")
        assert (error.field, error.code) == ("type", Code.BAD_PARAMETER)


@pytest.mark.parametrize("kind", ["", "PING", "ack", "pings", "0"])
def test_an_unknown_control_type_is_refused_with_those_that_exist(kind: str) -> None:
    error = refusal(as_json({"type": kind, "client_msg_id": "c"}))
    expected = "expected type 0, 1, 2 or 3 or one of auth, delivered, read, pull, ping"
    assert (error.field, error.client_msg_id) == ("type", "c")
    assert error.message == f"{expected}, got {kind!r}"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"type":"auth"}', "token"),
        ('{"type":"read","uuid":7}', "uuid"),
        ('{"type":"delivered"}', "uuid"),
        ('{"type":"pull"}', "conversation"),
        ('{"type":"pull","conversation":"G1","limit":0}', "limit"),
        ('{"type":"pull","conversation":"G1","limit":201}', "limit"),
        ('{"type":"pull","conversation":"G1","limit":true}', "limit"),
        ('{"type":"pull","conversation":"G1","after_seq":-1}', "after_seq"),
        ('{"type":"pull","conversation":"G1","after_seq":9223372036854775808}', "after_seq"),
        ('{"type":"pull","conversation":"G\\u0000"}', "conversation"),
    ],
)
def test_a_broken_control_frame_is_refused_by_field(text: str, field: str) -> None:
    assert refusal(text.encode()).field == field


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"null", b"0", b'"x"', b"[]", b"[" + as_json() + b"]", b"{", b"{}x", as_json() + b"{}", DEEP,
        b"\xff\xfe", b"\xef\xbb\xbf" + as_json(), b"{'type':0}", b'{"type":0,}', b"\x00", b"NaN", b'{"type":NaN}',
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    assert refusal(data).message.startswith("expected one JSON object")


def test_text_that_is_not_utf8_is_refused() -> None:
    assert "UTF-8" in refusal(as_json().replace(b"hi", b"\xff\xfe")).message


@pytest.mark.parametrize("field", ["content", "send_name", "av_data", "client_msg_id"])
def test_a_nul_character_is_refused_by_field(field: str) -> None:
    assert refusal(as_json({field: "a\0b"})).field == field


def test_a_backslash_before_u0000_is_only_text() -> None:
    frame = decode_frame(as_json({"content": r"\u0000"}))
    assert isinstance(frame, ChatMessageRequest)
    assert frame.content == r"\u0000"


def test_of_a_key_that_comes_twice_the_last_one_counts() -> None:
    frame = decode_frame(b'{"type":0,"send_id":"U1","receive_id":"U2","content":"a","content":"b"}')
    assert isinstance(frame, ChatMessageRequest)
    assert frame.content == "b"


@pytest.mark.parametrize("types", [b'"type":0,"type":"ping"', b'"type":"ping","type":0', b'"type":"x","type":true'])
def test_two_types_of_different_kinds_are_refused(types: bytes) -> None:
    assert refusal(b"{" + types + b',"send_id":"U1","receive_id":"U2"}').field == "type"


def test_a_refusal_gives_the_client_msg_id_back() -> None:
    assert refusal(as_json({"type": 9, "client_msg_id": "c1"})).client_msg_id == "c1"


def test_a_client_msg_id_that_is_itself_wrong_is_not_given_back() -> None:
    for wrong in ("x" * 65, "", 7):
        assert refusal(as_json({"client_msg_id": wrong})).client_msg_id is None


def test_a_refusal_never_repeats_a_payload() -> None:
    secret = "correct horse battery staple"
    assert secret not in refusal(as_json({"receive_id": secret})).message


def test_over_http_a_control_frame_is_refused() -> None:
    with pytest.raises(BadFrame, match="got a control frame"):
        decode_request(b'{"type":"ping"}')
    assert decode_request(as_json()) == decode_frame(as_json())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(["type", "send_id", "receive_id", "content", "client_msg_id", "uuid", "token", "conversation"])
types = st.sampled_from([0, 3, "ping", "pull", "read", "auth", "x", True])


def decodes_or_refuses(data: bytes) -> None:
    try:
        decode_frame(data)
    except BadFrame as error:
        assert error.message
        assert len(error.message) < 400


@pytest.mark.parametrize(
    "tail",
    [b"", b",", b'"\xff":1}', b'"content":"\xff"}', b'"content":"\\ud800"}', b'"x":' + DEEP, b'"x":' + b"9" * 5000],
)
@pytest.mark.parametrize("head", [b'{"type":"x",', b'{"type":"ping",', b'{"type":true,', b'{"type":"pull",'])
def test_what_is_broken_after_a_type_that_is_no_messages_never_raises_anything_else(head: bytes, tail: bytes) -> None:
    decodes_or_refuses(head + tail)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60))
@example(b'{"type":"x", ')
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    decodes_or_refuses(data)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(keys, json_values | types, max_size=6), st.integers(0, 60), st.binary(max_size=3))
def test_any_object_decodes_or_is_refused_cut_short_and_spoilt_too(
    frame: dict[str, Any], cut: int, noise: bytes
) -> None:
    data = json.dumps(frame, ensure_ascii=False).encode("utf-8", "surrogatepass")
    decodes_or_refuses(data)
    decodes_or_refuses(data[:cut] + noise)
    decodes_or_refuses(data[:cut] + noise + data[cut:])


GOOD: dict[str, st.SearchStrategy[Any]] = {
    "type": st.integers(0, 3),
    "send_id": ids,
    "receive_id": ids | ids.map(lambda user: "G" + user[1:]),
    "send_name": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    "content": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    "client_msg_id": st.none() | st.text("abc-", min_size=1, max_size=64),
}
WRONG: dict[str, st.SearchStrategy[Any]] = {
    "type": st.integers(4) | st.integers(max_value=-1) | st.none() | st.booleans() | st.floats(allow_nan=False),
    "send_id": st.integers() | st.none() | st.text(max_size=30).filter(lambda text: not is_user_id(text)),
    "receive_id": st.booleans() | st.lists(st.none(), max_size=2) | st.sampled_from(["", "U", "X1", "U1 ", "U" * 21]),
    "send_name": st.integers() | st.none() | st.text("x", min_size=21, max_size=40),
    "content": st.integers() | st.none() | st.booleans() | st.dictionaries(st.text("k"), st.none(), max_size=2),
    "client_msg_id": st.integers() | st.sampled_from(["", "x" * 65]) | st.booleans(),
}


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries(GOOD))
def test_any_good_message_comes_through_unchanged(frame: dict[str, Any]) -> None:
    decoded = decode_frame(json.dumps(frame).encode())
    assert {name: getattr(decoded, name) for name in frame} == frame


@settings(max_examples=500, deadline=None)
@given(st.data(), st.fixed_dictionaries(GOOD), st.sampled_from(sorted(WRONG)))
def test_one_wrong_field_is_named_with_what_was_expected_and_what_came(
    data: st.DataObject, frame: dict[str, Any], field: str
) -> None:
    frame[field] = data.draw(WRONG[field])
    if isinstance(frame[field], float) and abs(frame[field]) == float("inf"):
        frame[field] = 0.5
    error = refusal(json.dumps(frame).encode())
    assert error.field == field
    assert re.match(r"expected .+, got .+", error.message, re.S), error.message


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"), (False, "false"), (1.5, "the number 1.5"), (-(10**20), "a very large number"), ("a", "'a'"),
        ("x" * 25, "a string of 25 characters"), ([1, 2], "an array of 2"), ({}, "an object"),
        (msgspec.Raw(b"["), "a value that cannot be read"),
    ],
)  # fmt: skip
def test_a_value_is_described_in_a_few_words(value: Any, words: str) -> None:
    assert describe(value) == words


# --- call signals


def signal(av_data: str, receive_id: str = "U2") -> ChatMessageRequest:
    return ChatMessageRequest(type=3, send_id="U1", receive_id=receive_id, av_data=av_data, client_msg_id="c")


@pytest.mark.parametrize("kind", ["start_call", "receive_call", "reject_call"])
def test_the_signals_that_begin_and_answer_a_call_are_stored(kind: str) -> None:
    assert is_stored_signal(signal(json.dumps({"messageId": "PROXY", "type": kind, "messageData": {"sdp": 1}})))


@pytest.mark.parametrize(
    "av_data",
    [
        "{}",
        '{"messageId":"PROXY"}',
        '{"messageId":"PROXY","type":"sdp"}',
        '{"messageId":"PEER_LEAVE","type":"start_call"}',
    ],
)
def test_other_signals_are_ephemeral(av_data: str) -> None:
    assert not is_stored_signal(signal(av_data))


@pytest.mark.parametrize(
    "av_data", ["", "x", "[]", "null", '"x"', '{"messageId":1}', "{", DEEP.decode(), '{"a":' + DEEP.decode()]
)
def test_a_signal_that_is_no_json_object_is_refused(av_data: str) -> None:
    with pytest.raises(BadFrame, match="expected a JSON object in a string") as caught:
        is_stored_signal(signal(av_data))
    assert (caught.value.field, caught.value.client_msg_id) == ("av_data", "c")


def test_a_signal_to_a_group_is_refused() -> None:
    with pytest.raises(BadFrame, match="to a group") as caught:
        is_stored_signal(signal("{}", "G1"))
    assert caught.value.field == "receive_id"


# --- to the client

UPSTREAM = [
    "send_id", "send_name", "send_avatar", "receive_id", "type", "content", "url", "file_type", "file_name",
    "file_size", "created_at",
]  # fmt: skip


def built(**fields: Any) -> Message:
    request = ChatMessageRequest(
        **{
            "type": 0, "send_id": "U1", "receive_id": "U2", "content": "c", "url": "u", "file_size": "1KB",
            "file_type": "t", "file_name": "n", "av_data": "{}", **fields,
        }
    )  # fmt: skip
    return build_message(request, 2**62, 7, 1_700_000_000_123)


def test_a_push_has_kamachats_keys_in_its_order_and_then_ours() -> None:
    keys_of_push = list(json.loads(encode(built(client_msg_id="c"))))
    assert keys_of_push == [*UPSTREAM, "uuid", "session_id", "seq", "status", "client_msg_id", "created_ms"]


def test_only_a_call_signal_has_av_data_last_of_kamachats_keys() -> None:
    assert list(json.loads(encode(built(type=3))))[: len(UPSTREAM) + 1] == [*UPSTREAM, "av_data"]
    assert "av_data" not in json.loads(encode(built()))


def test_the_uuid_is_a_string_because_javascript_cannot_hold_it() -> None:
    assert json.loads(encode(built()))["uuid"] == str(2**62)


@pytest.mark.parametrize(
    ("kind", "content", "url", "file"),
    [
        (MessageType.TEXT, "c", "u", ("", "", "0B")),
        (MessageType.VOICE, "c", "u", ("t", "n", "1KB")),
        (MessageType.FILE, "c", "u", ("t", "n", "1KB")),
        (MessageType.AUDIO_OR_VIDEO, "", "", ("", "", "")),
    ],
)
def test_a_push_has_only_the_fields_of_its_type(
    kind: MessageType, content: str, url: str, file: tuple[str, str, str]
) -> None:
    message = built(type=kind)
    assert (message.content, message.url) == (content, url)
    assert (message.file_type, message.file_name, message.file_size) == file
    assert message.status == MessageStatus.UNSENT


def test_without_a_client_msg_id_the_key_is_absent() -> None:
    assert "client_msg_id" not in json.loads(encode(built()))


def test_times_are_in_the_nodes_local_time() -> None:
    assert local_time(1_700_000_000_999) == time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1_700_000_000))


def test_a_message_reads_back_from_its_json() -> None:
    message = built(type=3, client_msg_id="c")
    assert msgspec.json.decode(encode(message), type=Message) == message


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (PongFrame(), '{"type":"pong"}'),
        (ExpiringFrame(60), '{"type":"expiring","in":60}'),
        (AckFrame(client_msg_id="c", uuid="1"), '{"type":"ack","client_msg_id":"c","uuid":"1","status":"accepted"}'),
        (
            StatusFrame(conversation="U1_U2", seq=3, status="read", user_id="U2", at=5),
            '{"type":"status","conversation":"U1_U2","seq":3,"status":"read","user_id":"U2","at":5}',
        ),
        (SystemFrame(content="hello", event="welcome"), '{"type":"system","content":"hello","event":"welcome"}'),
        (ErrorFrame(code=1001, message="m"), '{"type":"error","code":1001,"message":"m"}'),
    ],
)
def test_control_frames_to_the_client_are_spelt_as_specified(frame: Any, text: str) -> None:
    assert encode(frame).decode() == text


# --- errors


def test_an_error_frame_names_the_field_and_the_message_it_is_about() -> None:
    error = BadFrame("expected int", field="type", client_msg_id="c")
    assert json.loads(error_frame(error)) == {
        "type": "error", "code": 1001, "message": "expected int", "field": "type", "client_msg_id": "c",
    }  # fmt: skip


def test_an_error_frame_can_be_told_the_client_msg_id() -> None:
    assert json.loads(error_frame(Forbidden("no"), "c"))["client_msg_id"] == "c"


def test_a_rate_limit_says_when_to_come_back_never_a_moment_too_early() -> None:
    frame = json.loads(error_frame(RateLimited("slowly", retry_after=0.0123)))
    assert (frame["code"], frame["retry_after_ms"]) == (1009, 13)
    assert json.loads(error_frame(RateLimited("slowly", retry_after=0.0000001)))["retry_after_ms"] == 1


def test_envelopes_are_kamachats() -> None:
    assert envelope() == b'{"code":1000,"msg":"success","data":null}'
    assert envelope([1]) == b'{"code":1000,"msg":"success","data":[1]}'
    assert error_envelope(Code.UNAUTHORISED, "no") == b'{"code":1006,"msg":"no","data":null}'


def every(kind: type[KamaError]) -> list[type[KamaError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in every(child))]


def test_every_error_has_a_code_of_the_wire_and_a_status_of_http() -> None:
    for kind in every(KamaError):
        assert kind.code in Code
        assert 400 <= kind.http_status < 600


def test_errors_say_whether_trying_again_helps() -> None:
    retriable = {kind.__name__ for kind in every(KamaError) if kind.retriable}
    assert {"Busy", "RateLimited"} <= retriable
    assert not retriable & {"BadParameter", "BadFrame", "Forbidden", "Unauthorised", "NotFound", "NoSuchGroup"}


def test_an_error_keeps_its_message_field_and_hint() -> None:
    error = BadParameter("expected more", field="limit", hint="give more")
    assert (str(error), error.message, error.field, error.hint) == (
        "expected more",
        "expected more",
        "limit",
        "give more",
    )
    assert isinstance(TooLarge("big"), BadParameter)


def test_close_codes_that_mean_come_back_are_apart_from_those_that_do_not() -> None:
    stay_away = {CloseCode.REPLACED, CloseCode.KICKED, CloseCode.FORBIDDEN, CloseCode.ABUSE}
    assert {int(code) for code in stay_away} == {4001, 4002, 4003, 4009}
    ours = {int(code) for code in CloseCode if code >= 4000}
    assert ours == {4001, 4002, 4003, 4005, 4008, 4009, 4010}


def test_a_group_that_was_written_to_is_still_no_sender() -> None:
    for receiver in (b"Gseen", b"U1"):
        decode_frame(b'{"type":0,"send_id":"U1","receive_id":"%s"}' % receiver)
    with pytest.raises(BadFrame) as caught:
        decode_frame(b'{"type":0,"send_id":"Gseen","receive_id":"U1"}')
    assert caught.value.field == "send_id"
    assert decode_frame(b'{"type":0,"send_id":"U1","receive_id":"Gseen"}')


def test_what_is_no_id_is_refused_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kama.protocol._KNOWN_IDS_MAX", 2)
    for number in range(5):
        assert decode_frame(b'{"type":0,"send_id":"U1","receive_id":"U%d"}' % number)
        for wrong in (b"U", b"X1", b"U 1", b"U" + 20 * b"x"):
            with pytest.raises(BadFrame):
                decode_frame(b'{"type":0,"send_id":"U1","receive_id":"%s"}' % wrong)
