"""Upstreams as they are declared: the blocks of their page, what is wrong in a sentence, names and patterns, and what
of an order goes to one."""

import asyncio
import re
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from farebox.core.declared import CappedBy, Declared, Timeouts, usual_cap
from farebox.core.filters import Filtered, NoSuchFilter, filter_of
from farebox.core.fitting import Fitted, fitted, renamed
from farebox.core.pricing import PricedModel, PriceList, Prices, joined, price_list, served_of
from farebox.deadlines import Deadlines
from farebox.from_settings import declared_upstreams
from farebox.settings import BadSettings, load
from farebox.testing import ScriptedUpstream
from farebox.upstream.hosts import OwnModel
from farebox.upstream.openai import OpenAi
from farebox.upstream.running import RunningUpstreams

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "upstreams.md").read_text()
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
KEYS = {"OPENROUTER_API_KEY": "sk-or-x", "OPENAI_API_KEY": "sk-x", "ANTHROPIC_API_KEY": "sk-ant-x"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    return tmp_path


def declared(folder: Path, text: str) -> list[Declared]:
    (folder / "farebox.toml").write_text(text)
    return declared_upstreams(load())


def refused(folder: Path, text: str) -> str:
    with pytest.raises(BadSettings) as wrong:
        declared(folder, text)
    return str(wrong.value)


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_of_the_page_is_an_upstream(folder: Path, block: str) -> None:
    (one,) = declared(folder, block)
    assert one.base_url.startswith("http")


def test_all_blocks_of_the_page_stand_together(folder: Path) -> None:
    every = {each.name: each for each in declared(folder, "\n".join(BLOCKS))}
    assert list(every) == ["openrouter", "openai", "anthropic", "ollama", "vllm", "llama", "lmstudio"]
    assert every["openai"].own_name("openai/gpt-4o") == "gpt-4o"
    assert every["openai"].key_variable == "OPENAI_API_KEY"
    assert every["vllm"].key_variable is None
    assert every["llama"].own_name("local/llama") == "default"
    assert every["anthropic"].at_hang_up == "drain"
    assert (every["openrouter"].at_hang_up, every["ollama"].at_hang_up) == ("cancel", "cancel")
    caps = [every[name].capped_by for name in ("openai", "ollama", "vllm", "llama", "lmstudio")]
    assert caps == ["max_completion_tokens", "max_tokens", None, "max_tokens", "max_tokens"]
    assert every["lmstudio"].timeouts == Timeouts(10, 900, 120)


def test_without_blocks_there_is_the_one_upstream_as_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = declared(folder, 'hang_up = "drain"\nno_data_seconds = 7\n')
    assert (one.name, one.base_url, one.key_variable) == (
        "openrouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
    )
    assert (one.at_hang_up, one.timeouts.no_data, one.formats, one.prices) == ("drain", 7, None, "itself")
    monkeypatch.delenv("OPENROUTER_API_KEY")
    monkeypatch.setenv("FAREBOX_SIMULATOR_URL", "http://127.0.0.1:1/api/v1")
    assert [(each.name, each.base_url) for each in declared(folder, "")] == [("simulator", "http://127.0.0.1:1/api/v1")]


OPENAI = '[upstreams.a]\nkind = "openai"\nprices = "free"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OPENAI + OPENAI, "farebox.toml: Cannot declare ('upstreams', 'a') twice"),
        ('[upstreams.A]\nkind = "openrouter"\n', "name upstreams in lower case, digits, `-` and `_`; 'A' is no such"),
        (
            '[upstreams.a]\nkind = "opneai"\n',
            "upstreams.a.kind: there is no kind `opneai`, only 'openrouter', 'openai'",
        ),
        (
            '[upstreams.a]\nkind = "openai"\n',
            'upstreams.a: prices: not set, and the kind `openai` tells none; write "fil',
        ),
        ('[upstreams.a]\nprices = "free"\n', "upstreams.a.kind: is not set"),
        ('[upstreams.a]\nkind = "openrouter"\nprices = "free"\n', "prices: not for the kind `openrouter`"),
        (OPENAI + 'key_variable = "NO_SUCH_KEY"\n', "key_variable: the environment variable NO_SUCH_KEY is not set"),
        (
            OPENAI + 'formats = ["chats"]\n',
            "upstreams.a.formats: nobody speaks the format 'chats'; there are chat, mess",
        ),
        (OPENAI + 'formats = ["messages"]\n', "formats: the kind `openai` cannot speak messages, only chat, responses"),
        (OPENAI + "formats = []\n", "upstreams.a.formats: name at least one format"),
        (OPENAI + 'base_url = "localhost:1"\n', "upstreams.a.base_url: write a URL like https://api.example/v1"),
        (OPENAI + 'base_url = "http://k:s@a/v1"\n', "write the key into an environment variable"),
        (OPENAI + 'base_url = "http://localhost:8080/v1"\n', "is this gateway itself; orders would go in circles"),
        (OPENAI + 'names = { "a/*" = "b" }\n', "write one `*` or none into both names; 'a/*' = 'b'"),
        (OPENAI + "orders_max = 0\n", "upstreams.a.orders_max: Expected `int` >= 1"),
        (OPENAI + 'at_hangup = "drain"\n', "upstreams.a.at_hangup: there is no such setting; did you mean at_hang_up?"),
        (
            OPENAI + 'capped_by = "n_predict"\n',
            "upstreams.a.capped_by: write 'max_tokens' or",
        ),
        (
            '[upstreams.a]\nkind = "anthropic"\nprices = "free"\ncapped_by = "max_tokens"\n',
            "upstreams.a: capped_by: not for the kind `anthropic`",
        ),
        (OPENAI.replace("free", "file") + 'at_hang_up = "cancel"\n', '"cancel" would leave the cost unknown'),
        (OPENAI + "zrd = true\n", "upstreams.a.zrd: there is no such setting; did you mean zdr?"),
        (OPENAI + "[upstreams.a.per_model.x]\nzrd = true\n", "upstreams.a.per_model.x.zrd: there is no such setting"),
        (OPENAI + 'supported_parameters = ["topp"]\n', "has no parameter 'topp'; did you mean top_p?"),
        (OPENAI + 'quantization = "fp9"\n', "upstreams.a.quantization: write 'int4', 'int8',"),
        (OPENAI + "input_modalities = []\n", "upstreams.a.input_modalities: name at least one modality"),
        (OPENAI + "zdr = true\ncollects_data = true\n", "zdr: what keeps nothing collects no data"),
        (
            '[upstreams.a]\nkind = "openrouter"\n[upstreams.a.per_model.x]\nzdr = true\n',
            "upstreams.a.per_model.zdr: not for the kind `openrouter`, which knows its own hosts",
        ),
        ('upstream_url = "http://a/api/v1"\n' + OPENAI, "upstream_url: not together with [upstreams]"),
        (
            'upstream_kind = "openai"\nupstream_url = "http://a/v1"\n',
            "tells no prices; declare it under [upstreams.NAME]",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(folder: Path, text: str, said: str) -> None:
    assert said in refused(folder, text)


# Traits

TRAITS = """
[upstreams.a]
kind = "openai"
prices = "free"
zdr = true
supported_parameters = ["usual", "min_p"]

[upstreams.a.per_model."x/*"]
quantization = "int8"
context_tokens = 9

[upstreams.a.per_model."x/y*"]
quantization = "fp8"
answer_tokens_max = 7

[upstreams.a.per_model."x/yes"]
zdr = false
input_modalities = ["text", "image"]
"""


def test_of_a_model_counts_its_own_name_then_the_first_pattern_then_its_upstream(folder: Path) -> None:
    (one,) = declared(folder, TRAITS)
    other, yes, no = (one.traits_of(name) for name in ("other", "x/yes:nitro", "x/no"))
    assert (other.zdr, other.collects, other.quantization) == (True, False, None)
    assert (yes.zdr, yes.collects, yes.quantization, yes.context_tokens) == (False, None, "int8", 9)
    assert (yes.answer_tokens_max, yes.longest_answer, yes.input_modalities) == (7, 7, ("text", "image"))
    assert (no.quantization, no.answer_tokens_max, no.longest_answer) == ("int8", None, 9)
    assert {"min_p", "seed"} <= other.supports("/chat/completions")
    assert "seed" not in other.supports("/messages")
    assert other.listed_parameters(["/chat/completions"])[:3] == ["temperature", "top_p", "min_p"]
    assert one.unmatched(["x/z"]) == ("x/y*", "x/yes")


TEXT = Filtered(("text",), ("text",), ("tools", "seed"), 1000, zdr=True)
PICTURES = Filtered(("text", "image"), ("text", "image"), (), distillable=True)
VECTORS = Filtered(("text",), ("embeddings",), ())
MODELS = {"text": TEXT, "pictures": PICTURES, "vectors": VECTORS}


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "text pictures"),
        ({"sort": "newest"}, "text pictures"),
        ({"output_modalities": "all"}, "text pictures vectors"),
        ({"output_modalities": "image,embeddings"}, "pictures vectors"),
        ({"input_modalities": "text,image"}, "pictures"),
        ({"supported_parameters": "tools,seed"}, "text"),
        ({"supported_parameters": "tools,min_p"}, ""),
        ({"context": "1000"}, "text"),
        ({"context": "1001"}, ""),
        ({"zdr": "true"}, "text"),
        ({"distillable": "true"}, "pictures"),
        ({"distillable": "false"}, "text"),
        ({"category": "programming"}, ""),
    ],
)
def test_filters_let_through_what_is_declared(filters: dict[str, str], found: str) -> None:
    is_listed = filter_of(tuple(filters.items()), lists_texts=True)
    assert [name for name, model in MODELS.items() if is_listed(model)] == found.split()


@pytest.mark.parametrize("filters", [{"context": "many"}, {"context": "0"}, {"zdr": "yes"}, {"distillable": "1"}])
def test_a_filter_that_is_none_is_refused_with_its_name(filters: dict[str, str]) -> None:
    with pytest.raises(NoSuchFilter, match=next(iter(filters))):
        filter_of(tuple(filters.items()), lists_texts=True)


# Names and patterns


def at(**more: object) -> Declared:
    return Declared("a", "openai", "http://a", Timeouts(1, 1, 1), **more)  # type: ignore[arg-type]


def test_a_star_stands_for_the_same_in_both_names() -> None:
    one = at(names=(("my/best", "big-7b"), ("my/*", "*")), models=("my/*", "bare", "no/*"))
    assert [one.own_name(each) for each in ("my/best", "my/small", "my/small:nitro", "other")] == [
        "big-7b",
        "small",
        "small:nitro",
        "other",
    ]
    assert one.our_names("big-7b") == ("my/best", "my/big-7b")
    assert one.served(["big-7b", "small"]) == ("bare", "my/best", "my/big-7b", "my/small")
    assert one.unmatched(one.served(["small"])) == ("no/*",)
    assert one.may_serve("my/small:nitro")
    assert not one.may_serve("other")


def listed(prompt: str, *names: str) -> PriceList:
    return price_list([PricedModel(name, (Prices(prompt=Decimal(prompt)),)) for name in names])


def test_of_a_model_that_several_have_the_highest_price_counts() -> None:
    both = joined([listed("0.1", "a", "b"), listed("0.2", "b", "c")])
    assert {name: str(rates.prompt) for name, rates in both.rates.items()} == {"a": "0.1", "b": "0.2", "c": "0.2"}


def test_what_is_declared_of_an_upstream_is_priced_under_our_names() -> None:
    part = served_of(listed("0.1", "x/a", "x/b", "y/c"), at(names=(("mine/*", "x/*"),), models=("mine/a", "y/*")))
    assert list(part.rates) == ["mine/a", "y/c"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"prices": "free", "models": ("zz/*",)}, "`a` lists nothing that zz/* matches"),
        ({"prices": "file"}, "`a` has no price of its 1 models (`prices` is file)"),
    ],
)
def test_why_nothing_is_served_is_said(more: dict[str, object], said: str) -> None:
    async def main() -> None:
        upstreams = RunningUpstreams([at(**more)], lambda each: OpenAi(each, None, Deadlines()))
        documents = (msgspec.json.encode([("a", 1)]), msgspec.json.encode([OwnModel("x")]))
        with pytest.raises(ValueError, match=re.escape(f"no upstream has a model with a price: {said}")):
            upstreams.read_prices(documents)

    asyncio.run(main())


# Bodies


def own(model: str) -> str:
    return model.removeprefix("my/")


def test_only_the_models_name_is_changed_and_nothing_where_it_is_the_same() -> None:
    body = b'{"model": "gpt",  "messages": [ {"role":"user"} ], "x": 1.50}'
    assert fitted("/chat/completions", body, own, streamed=False) == Fitted(body)
    assert renamed(b'{"model":"my/gpt","x": [1.50 , "\\u00e9"]}', own) == b'{"model":"gpt","x":[1.50 , "\\u00e9"]}'


@pytest.mark.parametrize(
    ("path", "body", "sent", "left_out"),
    [
        ("/chat/completions", b'{"models":["my/a","b"]}', b'{"model":"a"}', ("models",)),
        ("/chat/completions", b'{"model":"a","provider":null,"top_k":1}', b'{"model":"a","top_k":1}', ()),
        (
            "/chat/completions",
            b'{"model":"a","reasoning":{"effort":"low"}}',
            b'{"model":"a","reasoning_effort":"low"}',
            (),
        ),
        (
            "/chat/completions",
            b'{"model":"a","reasoning":{"effort":"low","exclude":true}}',
            b'{"model":"a","reasoning_effort":"low"}',
            ("reasoning",),
        ),
        ("/responses", b'{"model":"a","reasoning":{}}', b'{"model":"a","reasoning":{},"store":false}', ()),
        ("/messages", b'{"model":"a","cache_control":{},"user":"u"}', b'{"model":"a","cache_control":{}}', ("user",)),
    ],
)
def test_what_only_openrouter_knows_is_left_out(path: str, body: bytes, sent: bytes, left_out: tuple[str, ...]) -> None:
    assert fitted(path, body, own, streamed=False) == Fitted(sent, left_out)


CAP, OLDER = b'"max_completion_tokens":9', b'"max_tokens":9'


@pytest.mark.parametrize(
    ("capped_by", "given", "sent"),
    [
        ("max_tokens", CAP, OLDER),
        ("max_tokens", OLDER, OLDER),
        ("max_tokens", b'"max_tokens":5,' + CAP, b'"max_tokens":5'),
        ("max_tokens", b'"max_tokens":10,' + CAP, OLDER),
        ("max_tokens", b'"max_tokens":null,' + CAP, OLDER),
        ("max_tokens", OLDER + b',"max_completion_tokens":null', OLDER + b',"max_completion_tokens":null'),
        ("max_completion_tokens", OLDER, CAP),
        ("max_completion_tokens", b'"x":1', b'"x":1'),
        (None, CAP, CAP),
        (None, OLDER, OLDER),
    ],
)
def test_an_answers_cap_goes_under_the_name_that_the_host_reads(
    capped_by: CappedBy | None, given: bytes, sent: bytes
) -> None:
    body, expected = (b'{"model":"a",%b}' % each for each in (given, sent))
    found = fitted("/chat/completions", body, own, streamed=False, capped_by=capped_by)
    assert found == Fitted(expected)
    assert fitted("/messages", body, own, streamed=False, capped_by=capped_by) == Fitted(body)


def test_openais_own_addresses_read_the_newer_cap(folder: Path) -> None:
    newer = "max_completion_tokens"
    assert declared(folder, OPENAI)[0].capped_by == newer
    assert declared(folder, OPENAI + 'capped_by = "max_tokens"\n')[0].capped_by == "max_tokens"
    azures = ("https://acme.openai.azure.com/openai/v1", "https://eu.api.openai.com/v1")
    assert [usual_cap("openai", each) for each in azures] == [newer, newer]
    others = ("http://127.0.0.1:11434/v1", "https://api.openai.com.evil.test/v1", "https://notapi.openai.com/v1")
    assert [usual_cap("openai", each) for each in others] == [None, None, None]
    assert usual_cap("openrouter", "https://api.openai.com/v1") is None


@pytest.mark.parametrize(
    ("options", "sent", "adds"),
    [
        (b"", b',"stream_options":{"include_usage":true}', True),
        (b',"stream_options":null', b',"stream_options":{"include_usage":true}', True),
        (
            b',"stream_options":{"include_obfuscation":false}',
            b',"stream_options":{"include_obfuscation":false,"include_usage":true}',
            True,
        ),
        (b',"stream_options":{"include_usage":true}', b',"stream_options":{"include_usage":true}', False),
    ],
)
def test_the_usage_of_a_stream_is_asked_for(options: bytes, sent: bytes, adds: bool) -> None:
    found = fitted("/chat/completions", b'{"model":"a","stream":true%b}' % options, own, streamed=True)
    assert found == Fitted(b'{"model":"a","stream":true%b}' % sent, (), adds)


# Which upstream an order goes to


def made(declared: Declared) -> ScriptedUpstream:
    upstream = ScriptedUpstream()
    upstream.declared = declared
    return upstream


def named(name: str, **more: object) -> Declared:
    return Declared(name, "openrouter", f"http://{name}", Timeouts(1, 1, 1), **more)  # type: ignore[arg-type]


def test_who_serves_a_model_is_known_with_the_formats_in_which_it_takes_orders() -> None:
    second, first = named("second", order=2), named("first", order=1, orders_max=1, models=("m",))
    embedder = named("embedder", order=0, formats=frozenset({"/embeddings"}))
    local = Declared(
        "local",
        "openai",
        "http://local",
        Timeouts(1, 1, 1),
        models=("m",),
        names=(("m", "own-m"),),
        formats=frozenset({"/chat/completions"}),
        prices="free",
    )
    upstreams = RunningUpstreams([second, first, embedder, local], made)
    found = {each.upstream: each for each in upstreams.candidates("m")}
    assert list(found) == ["embedder", "local", "first", "second"]
    assert [each.upstream for each in upstreams.candidates("other")] == ["embedder", "second"]
    assert found["embedder"].serves == {"/embeddings"}
    assert found["local"].serves == {"/chat/completions", "/messages", "/responses"}
    assert (found["local"].native("/messages"), found["local"].native("/chat/completions")) == (
        "/chat/completions",
        None,
    )
    assert (found["local"].priced_as, found["second"].priced_as) == ("own-m", None)
    assert (found["first"].orders_max, found["first"].booked_as) == (1, "first")


def test_a_change_keeps_what_is_declared_as_before_and_lets_what_is_not_run_out() -> None:
    upstreams = RunningUpstreams([named("a"), named("b"), named("c")], made)
    a, b, _ = (each.upstream for each in upstreams.every)
    engaged = upstreams.engage("b")
    assert engaged.upstream is b
    changes = upstreams.change([named("a"), named("b", order=1), named("d")])
    assert str(changes) == "added d; changed b; removed c"
    assert [each.declared.name for each in upstreams.every] == ["a", "d", "b"]
    assert upstreams.every[0].upstream is a
    assert upstreams.every[2].upstream is not b
    engaged.let_go()
    assert str(upstreams.change([named("b", order=1), named("d"), named("a")])) == ""
