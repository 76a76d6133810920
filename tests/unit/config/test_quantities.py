# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackwater.config.quantities import format_bytes, format_duration, parse_amount, parse_duration
from slackwater.model.quantities import Bytes, Share


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("250ms", 0.25),
        ("2h", 7200),
        ("7d", 604800),
        ("1y2w", 32745600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        (" 1.5h ", 5400),
        ("0s", 0),
        ("1d2h3m4s5ms", 93784.005),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize("text", ["", "s", "1x", "-1s", "1m1h", "1s1s", "1h30", "1e3s", "one hour", "1h,30m", "inf"])
def test_what_is_no_duration_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration.*1h30m"):
        parse_duration(text)


def test_a_bare_number_is_refused_with_the_unit_to_write() -> None:
    with pytest.raises(ValueError, match=r'"60" has no unit: write "60s"'):
        parse_duration("60")
    with pytest.raises(ValueError, match=r'"20" has no unit'):
        parse_amount("20")


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("10%", Share(10)),
        ("2.5 %", Share(2.5)),
        ("20GiB", Bytes(20 << 30)),
        ("500MB", Bytes(500_000_000)),
        ("1.5 KiB", Bytes(1536)),
        ("3kB", Bytes(3000)),
        ("3KB", Bytes(3000)),
        ("0B", Bytes(0)),
    ],
)
def test_amounts_are_read(text: str, amount: Share | Bytes) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize("text", ["", "%", "10 percent", "20G", "20gib", "-5%", "1GiB1MiB", "1.234%"])
def test_what_is_no_amount_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an amount of room.*20GiB"):
        parse_amount(text)


def test_a_share_of_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="below 100%"):
        parse_amount("100%")


def test_a_share_is_rounded_up() -> None:
    assert Share(10).of(101) == 11
    assert Bytes(7).of(1) == 7


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0421, "42ms"),
        (0.9999, "1s"),
        (2.345, "2.3s"),
        (59.96, "1m"),
        (60, "1m"),
        (90, "1m 30s"),
        (3599.6, "1h"),
        (5400, "1h 30m"),
        (86399, "1d"),
        (90061, "1d 1h"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (1023 << 10, "1023 KiB"),
        ((1 << 20) - 1, "1 MiB"),
        (20 << 30, "20 GiB"),
        (5 << 50, "5120 TiB"),
        (-1536, "-1.5 KiB"),
    ],
)
def test_bytes_are_written_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text


@given(st.floats(0, 1e9))
def test_a_written_duration_reads_back_within_what_is_shown(seconds: float) -> None:
    read = parse_duration(format_duration(seconds))
    assert abs(read - seconds) <= max(0.0005, 0.05 if seconds >= 0.9995 else 0, seconds / 20)
    assert format_duration(read) == format_duration(seconds)


@given(st.integers(0, 1 << 62))
def test_an_exact_number_of_bytes_reads_back_exactly(count: int) -> None:
    assert parse_amount(str(Bytes(count))) == Bytes(count)
    assert isinstance(parse_amount(format_bytes(count)), Bytes)


@given(st.integers(0, 9999))
def test_a_share_reads_back_exactly(hundredths: int) -> None:
    assert parse_amount(str(Share(hundredths / 100))) == Share(hundredths / 100)


@given(st.text())
def test_nothing_but_a_value_error_comes_out_of_garbage(text: str) -> None:
    for parse in (parse_duration, parse_amount):
        try:
            parse(text)
        except ValueError as e:
            assert text in str(e)  # noqa: PT017  # any text may also be a good one
