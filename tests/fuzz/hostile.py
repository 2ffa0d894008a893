"""Hostile input: what is good, spoilt at a few places."""

from collections.abc import Sequence

from hypothesis import strategies as st

NASTY = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"null",
    b"[]",
    b"{}",
    b"NaN",
    b"-Infinity",
    b"1e309",
    b"9" * 400,
    b"-0",
    b'"',
    b"'; DROP TABLE word; --",
    b"=cmd|' /C calc'!A0",
    b"../../../../etc/passwd",
    b"s3://other/file",
    b"${jndi:ldap://127.0.0.1/x}",
    b"!!python/object/apply:os.system [exit]",
    b"&a [*a]",
    b"&a [1]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: [*c,*c,*c,*c]",
    b"[" * 5000,
    b'{"a":' * 5000,
    b"\n" * 100,
    b"\r",
    b",",
    b"PAR1",
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"0001-01-01T00:00:00Z",
    b"9999-12-31T23:59:59.999999999+24:00",
    b"{%s}",
    b"\xe2\x80\xae\xe2\x80\x8b",
    b"--json",
    b"a" * 70_000,
)
"""Words that have broken programs before."""


@st.composite
def hostile(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed with up to five changes: bytes turned, cut, doubled, or exchanged for others or for something nasty."""
    data = draw(st.sampled_from(list(seeds)))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        other = draw(st.one_of(st.sampled_from(NASTY), st.binary(max_size=8), st.just(data[start:end] * 2)))
        data = data[:start] + other + data[end:]
    return data
