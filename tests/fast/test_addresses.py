"""What is plain in a URL is read and put together without yarl: as yarl does it."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from farebox.upstream.addresses import base_of

SCHEMES = st.sampled_from(["http", "https"])
HOSTS = st.one_of(
    st.sampled_from(["localhost", "127.0.0.1", "[::1]", "[0:0::1]", "b\xfccher.test", "xn--bcher-kva.test"]),
    st.from_regex(r"[a-zA-Z0-9][a-z0-9-]{0,3}(\.[a-z0-9]{1,3}){0,2}\.?", fullmatch=True),
)
PORTS = st.sampled_from(["", ":80", ":443", ":8080", ":080", ":9999", ":65535"])
PATHS = st.text("aZ9./-_~% ?\xfc+:@", max_size=8).map(lambda path: "/" + path)
QUERIES = st.lists(st.tuples(st.sampled_from(["a", "b c"]), st.text("aZ9.-_~%& +/\xfc", max_size=4)), max_size=2)


@given(SCHEMES, HOSTS, PORTS, st.sampled_from(["", "/", "/api/v1", "/v%201", "/a/../b", "//a", "/\xfc", "/a b"]))
@settings(max_examples=300)
@example("https", "h", "", "/api/v1")
def test_a_base_url_is_taken_apart_as_by_yarl(scheme: str, host: str, port: str, path: str) -> None:
    url = f"{scheme}://{host}{port}{path}"
    read, base = URL(url), base_of(url)
    assert (base.is_secured, base.host, base.port) == (scheme == "https", read.raw_host, read.port)
    assert (base.host_field, base.path) == (read.host_port_subcomponent, read.raw_path.rstrip("/"))


@given(st.sampled_from(["http://h/api/v1", "http://h", "http://h/v%201"]), PATHS, QUERIES)
@settings(max_examples=300)
@example("http://h/api/v1", "/models", [("output_modalities", "all"), ("a", "1.5-x")])
@example("http://h/api/v1", "/../keys", [])
def test_what_is_asked_for_is_quoted_as_by_yarl(url: str, path: str, query: list[tuple[str, str]]) -> None:
    whole = URL(url) / path.lstrip("/")
    assert base_of(url).target(path, tuple(query)) == whole.with_query(query).raw_path_qs
