"""Messages of directories: where they end, and which are never decoded."""

import pytest

from services.auth.ldap_frames import MOST_BYTES, MOST_PARTS, NotLdap, require_plain, size_of, without_controls

BIND_ANSWER = bytes.fromhex("300c 020101 6107 0a0100 0400 0400")


def test_a_message_ends_where_its_length_says() -> None:
    assert size_of(BIND_ANSWER + b"more") == len(BIND_ANSWER)
    assert size_of(bytes.fromhex("3084 00000100")) == 0x100 + 6
    for length in range(2):
        assert size_of(BIND_ANSWER[:length]) is None
    assert size_of(bytes.fromhex("3084 0000")) is None


@pytest.mark.parametrize(
    "begun",
    ["04", "3f", "3080", "3085 0000000100", "3086 0102030405", "30ff ffffffffff", f"3084 {MOST_BYTES:08x}"],
)
def test_what_begins_no_message_of_bounded_size_is_not_read(begun: str) -> None:
    with pytest.raises(NotLdap):
        size_of(bytes.fromhex(begun))


def test_answers_are_plain() -> None:
    # With a referral, credentials of SASL, a name, a value, and a control.
    assert require_plain(BIND_ANSWER) == 6
    require_plain(bytes.fromhex("3020 020101 780f 0a0100 0400 0400 a300 8700 8a00 8b00 a00a 3008 040131 0101ff 0400"))


@pytest.mark.parametrize(
    "message",
    [
        "3006 020101 9f0100",  # a long tag
        "3009 020101 9fffffffff7f00",
        "3008 0205 0000000001",  # a long number
        "3007 020101 0a02 0100",  # a code that is none
        "3005 020101 4200",  # an answer without parts
        "3005 020101 1000",  # a sequence without parts
        "3005 020101 8000",  # controls without parts
        "3005 020101 8300",  # a referral without parts
        "3005 020101 c200",  # of a private class
        "3005 020101 0405",  # longer than what it is in
        "3004 020101 04",  # no length
        "30" * 12 + "00",
        "3016 3014 3012 3010 300e 300c 300a 3008 3006 3004 3002 3000",  # deep
    ],
)
def test_what_no_directory_says_is_not_decoded(message: str) -> None:
    with pytest.raises(NotLdap):
        require_plain(bytes.fromhex(message))


def test_a_message_of_more_parts_than_a_directory_sends_is_not_decoded() -> None:
    """Each takes a while, and a message has room for a quarter of a million."""
    length = 2 * (MOST_PARTS - 1)
    assert require_plain(b"\x30\x82" + length.to_bytes(2) + b"\x04\x00" * (MOST_PARTS - 1)) == MOST_PARTS
    for message in (
        b"\x30\x82" + (length + 2).to_bytes(2) + b"\x04\x00" * MOST_PARTS,
        b"\x30\x82" + (length + 2).to_bytes(2) + b"\x30\x00" * MOST_PARTS,
    ):
        with pytest.raises(NotLdap):
            require_plain(message)
    with pytest.raises(NotLdap):
        require_plain(BIND_ANSWER, 5)


def test_controls_are_taken_out_and_nothing_else() -> None:
    plain = bytes.fromhex("3084 0000000c 020101 6107 0a0100 0400 0400")
    assert without_controls(BIND_ANSWER) == plain
    control = "3008 040131 0101ff 0400"
    assert without_controls(bytes.fromhex(f"3018 020101 6107 0a0100 0400 0400 a00a {control}")) == plain
    # As often as they come, and not those after them: Active Directory says there why it hangs up (MS-ADTS, 3.1.1.3).
    for order in (f"a00a {control} 8a0131 a000", f"8a0131 a00a {control} a000"):
        named = without_controls(bytes.fromhex(f"301d 020101 6107 0a0100 0400 0400 {order}"))
        assert named == bytes.fromhex("3084 0000000f 020101 6107 0a0100 0400 0400 8a0131")
