"""Guards: what they may do to orders, and what becomes of orders where they fail."""

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.books import Fare, KeptAnswer
from farebox.core.callers import Account, Caller, Key
from farebox.core.errors import Refusal
from farebox.core.formats import chat
from farebox.core.plans import BUILT_IN
from farebox.guards import AnswerView, Changed, Decision, OrderView, Pass, Refuse
from farebox.guards.loading import BadGuard, make_guard
from farebox.guards.patterns import Patterns
from farebox.guards.redaction import CARD_MARK, EMAIL_MARK, Redaction
from farebox.guards.running import ANSWERS_MAX, REASON_LENGTH_MAX, DeclaredGuard, Guarded, Guards
from farebox.guards.texts import texts_in, with_texts
from farebox.guards.threads import THREADS_MAX

CHAT = "/chat/completions"
CALLER = Caller(Account(2, "Zoë's", "paying", 0), Key(7, 2, "agent", b"", "", 0), BUILT_IN["paying"])


def body_of(said: str = "hi", **members: Any) -> bytes:
    return json.dumps({"model": "a/b", "messages": [{"role": "user", "content": said}], **members}).encode()


class Saying:
    """A guard that decides by a function."""

    def __init__(self, decide: Callable[[OrderView], Any]) -> None:
        self._decide = decide
        self.seen: list[OrderView] = []
        self.threads: list[str] = []

    def before(self, order: OrderView) -> Decision:
        self.seen.append(order)
        self.threads.append(threading.current_thread().name)
        said: Decision = self._decide(order)
        return said

    def after(self, answer: AnswerView) -> None:
        """Not of interest."""


class SayingLater(Saying):
    async def before(self, order: OrderView) -> Decision:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().before(order)


class SayingInDisguise(SayingLater):
    def before(self, order: OrderView) -> Any:
        return super().before(order)


class Looking:
    def __init__(self, look: Callable[[AnswerView], None]) -> None:
        self.look = look
        self.seen: list[AnswerView] = []

    async def after(self, answer: AnswerView) -> None:
        self.seen.append(answer)
        self.look(answer)


def declared(guard: Any, name: str = "g", **more: Any) -> DeclaredGuard:
    return DeclaredGuard(name, guard, **more)


def asked(*guards: DeclaredGuard, body: bytes = b"", counted: list[tuple[str, str]] | None = None) -> Guarded:
    """What becomes of an order."""
    counted = [] if counted is None else counted

    async def main() -> Guarded:
        every = Guards(guards, lambda guard, verdict: counted.append((guard, verdict)))
        return await every.before(CALLER, CHAT, chat, body or body_of())

    return asyncio.run(main())


def refused(*guards: DeclaredGuard, counted: list[tuple[str, str]] | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        asked(*guards, counted=counted)
    return caught.value


@pytest.mark.parametrize("kind", [Saying, SayingLater, SayingInDisguise])
def test_an_order_passes_is_changed_or_refused_by_each_guard_in_turn(kind: type[Saying]) -> None:
    counted: list[tuple[str, str]] = []
    passing = kind(lambda _: Pass())
    changing = kind(lambda order: Changed(order.body.replace(b"a/b", b"c/d")))
    last = kind(lambda _: Pass())
    guards = (declared(passing, "p"), declared(changing, "c"), declared(last, "l"))
    guarded = asked(*guards, counted=counted)
    assert guarded.body == body_of().replace(b"a/b", b"c/d")
    assert guarded.asked.models == ("c/d",)
    assert counted == [("p", "pass"), ("c", "changed"), ("l", "pass")]
    assert passing.seen == [OrderView("Zoë's", "agent", "paying", ("a/b",), CHAT, False, body_of())]
    assert last.seen[0] == guarded.view
    assert last.seen[0].model == "c/d"
    refusal = refused(declared(kind(lambda _: Refuse("it is Monday")), "r"), declared(last), counted=counted)
    assert (refusal.status, refusal.error_type) == (403, "permission_denied")
    assert refusal.message == "The guard `r` refuses this order: it is Monday"
    assert refusal.metadata == {"guard": "r", "reasons": ["it is Monday"]}
    assert counted[3:] == [("r", "refuse")]
    assert len(last.seen) == 1, "nobody is asked after a refusal"
    long = refused(declared(kind(lambda _: Refuse("x" * 9999)), "r"))
    assert long.metadata["reasons"] == ["x" * REASON_LENGTH_MAX]


def test_one_that_may_block_is_called_in_a_thread_and_one_that_may_not_is_not() -> None:
    blocking, waiting = Saying(lambda _: Pass()), SayingLater(lambda _: Pass())
    asked(declared(blocking), declared(waiting))
    assert blocking.threads[0].startswith("farebox-guard")
    assert waiting.threads == ["MainThread"]


def raises(_: OrderView) -> Decision:
    raise RuntimeError("a secret of the guard's")


@pytest.mark.parametrize(
    "decide",
    [
        raises,
        lambda _: True,
        lambda _: None,
        lambda _: Changed(b"no JSON"),
        lambda _: Changed("a text"),  # type: ignore[arg-type]
        lambda _: Changed(body_of(stream=True)),
    ],
)
@pytest.mark.parametrize("kind", [Saying, SayingLater])
def test_one_that_fails_refuses_or_lets_pass_as_is_set(kind: type[Saying], decide: Any) -> None:
    counted: list[tuple[str, str]] = []
    refusal = refused(declared(kind(decide)), counted=counted)
    assert refusal.status == 403
    assert "secret" not in refusal.message
    after = Saying(lambda _: Pass())
    guarded = asked(declared(kind(decide), on_failure="pass"), declared(after), counted=counted)
    assert guarded.body == body_of()
    assert after.seen[0].body == body_of()
    assert counted == [("g", "failed"), ("g", "failed"), ("g", "pass")]


def test_one_that_is_slow_refuses_or_lets_pass_within_its_bound() -> None:
    never = threading.Event()

    class Waiting:
        async def before(self, order: OrderView) -> Decision:
            await asyncio.Event().wait()
            return Pass()

    for slow in (Saying(lambda _: never.wait()), Waiting()):
        counted: list[tuple[str, str]] = []
        assert "took longer than 0.01 s" in refused(declared(slow, seconds=0.01), counted=counted).message
        assert asked(declared(slow, seconds=0.01, on_failure="pass"), counted=counted).body == body_of()
        assert counted == [("g", "slow")] * 2
    never.set()


def test_one_that_hangs_for_ever_takes_no_more_than_its_threads_and_orders_go_on() -> None:
    never = threading.Event()
    slow = Saying(lambda _: never.wait())

    async def main() -> None:
        guards = Guards([declared(slow, seconds=0.01, on_failure="pass")])
        await asyncio.gather(*(guards.before(CALLER, CHAT, chat, body_of()) for _ in range(3 * THREADS_MAX)))
        assert len(set(slow.threads)) == len(slow.threads) == THREADS_MAX
        never.set()

    asyncio.run(main())


def test_what_is_no_order_is_a_400_and_no_guard_sees_it() -> None:
    never_asked = Saying(raises)
    with pytest.raises(Refusal) as caught:
        asked(declared(never_asked), body=b"{}")
    assert caught.value.status == 400
    assert never_asked.seen == []


KEPT = KeptAnswer("h", "application/json", b"{}")
VIEW = OrderView("a", "k", "paying", ("a/b",), CHAT, False, b"{}")


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


def test_answers_are_looked_at_after_they_were_booked_and_a_guard_that_fails_holds_up_none() -> None:
    async def work() -> None:
        looked = asyncio.Event()
        counted: list[tuple[str, str]] = []

        def fail(_: AnswerView) -> None:
            raise RuntimeError

        failing, looking = Looking(fail), Looking(lambda _: looked.set())
        every = [declared(failing, "f"), declared(looking, "l")]
        guards = Guards(every, lambda guard, verdict: counted.append((guard, verdict)))
        assert guards.want_answers
        running = asyncio.create_task(guards.run())
        guards.after(VIEW, None, "gen-0", None)
        guards.after(VIEW, KEPT, "gen-1", Fare(Decimal("0.1"), 10_000, 7))
        await looked.wait()
        assert looking.seen == failing.seen == [AnswerView(VIEW, "gen-1", "application/json", b"{}", 7)]
        assert counted == [("f", "failed")]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run(work)


def test_more_answers_than_wait_are_left_out_and_counted() -> None:
    async def work() -> None:
        counted: list[tuple[str, str]] = []
        guards = Guards([declared(Looking(lambda _: None))], lambda *said: counted.append(said))
        for _ in range(ANSWERS_MAX + 2):
            guards.after(VIEW, KEPT, "gen-1", None)
        assert counted == [("g", "left_out")] * 2

    run(work)


def test_without_a_guard_for_them_no_answers_are_wanted() -> None:
    class OnlyBefore:
        def before(self, order: OrderView) -> Decision:
            return Pass()

    assert not Guards([declared(OnlyBefore())]).want_answers


def test_guards_of_other_packages_are_found_by_their_entry_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_guard.py").write_text(
        "class Theirs:\n"
        "    def __init__(self, most=3):\n"
        "        if most < 1:\n"
        "            raise ValueError('most: write a number above zero')\n"
        "        self.most = most\n"
        "    def before(self, order):\n"
        "        return None\n"
        "class NoGuard:\n"
        "    pass\n"
    )
    info = tmp_path / "their_guard-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-guard\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[farebox.guards]\ntheirs = their_guard:Theirs\nnone = their_guard:NoGuard\ngone = no_such_module:X\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    guard: Any = make_guard("theirs", {"most": 5})
    assert guard.most == 5
    for kind, settings, said in (
        ("theirs", {"most": 0}, "most: write a number above zero"),
        ("theirs", {"least": 0}, "unexpected keyword argument 'least'"),
        ("none", {}, "neither a method `before` nor a method `after`"),
        ("gone", {}, "needs the package no_such_module"),
        ("such", {}, "there is no kind of guard `such`; there are gone, none, patterns, redaction, theirs"),
    ):
        with pytest.raises(BadGuard) as caught:
            make_guard(kind, settings)
        assert said in str(caught.value)
        assert str(caught.value).count("kind") == 1, "said once"
    sys.modules.pop("their_guard", None)


def seen(body: bytes) -> OrderView:
    return OrderView("a", "k", "paying", ("a/b",), CHAT, False, body)


def test_a_pattern_that_is_found_refuses() -> None:
    guard = make_guard("patterns", {"patterns": {"codename": r"project \w+", "secret": "(?i)hush"}})
    assert guard.before(seen(body_of("about Project X"))) == Pass()
    assert guard.before(seen(body_of("about project X"))) == Refuse("it has `codename` in it")
    assert guard.before(seen(body_of("HUSH"))) == Refuse("it has `secret` in it")
    # However it is written in JSON.
    assert guard.before(seen(rb'{"x":"\u0068ush"}')) == Refuse("it has `secret` in it")
    assert guard.before(seen(rb'{"x":"\ud83d"}')) == Pass()
    assert guard.before(seen(b'{"hush":1,"url":"data:image/png;base64,hush"}')) == Pass()
    assert Patterns({"x": "ABC"}, ignore_case=True).before(seen(body_of("abc"))) == Refuse("it has `x` in it")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "patterns"),
        ({"patterns": {}}, "give at least one"),
        ({"patterns": ["x"]}, "give at least one"),
        ({"patterns": {"x": "("}}, "patterns.x: missing )"),
    ],
)
def test_patterns_that_are_wrong_are_told_at_the_start(settings: Mapping[str, Any], said: str) -> None:
    with pytest.raises(BadGuard) as caught:
        make_guard("patterns", settings)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Write to max@example.com.", f"Write to {EMAIL_MARK}."),
        ("<max@example.com>, 'eva@x.test'", f"<{EMAIL_MARK}>, '{EMAIL_MARK}'"),
        ("mailto:max.o'neil+tag@sub.example.co.uk?subject=x", f"mailto:{EMAIL_MARK}?subject=x"),
        ("jörg@müller.de und 用户@例子.公司", f"{EMAIL_MARK} und {EMAIL_MARK}"),
        ("max@corp.local root@x.localhost", f"{EMAIL_MARK} {EMAIL_MARK}"),
        ("a@b.de,c@d.fr;e@f.it", f"{EMAIL_MARK},{EMAIL_MARK};{EMAIL_MARK}"),
        ("_max@example.com_", f"{EMAIL_MARK}_"),
        ("@max, x@y, @app.get('/'), a @ b.de, @@ -1 +1 @@", None),
        ("card 4111 1111 1111 1111, please", f"card {CARD_MARK}, please"),
        ("4111111111111111 5500-0000-0000-0004", f"{CARD_MARK} {CARD_MARK}"),
        ("3782 822463 10005 6011000990139424", f"{CARD_MARK} {CARD_MARK}"),
        ("4111 1111 1111 1111 123, or 12/27", f"{CARD_MARK} 123, or 12/27"),
        ("no 123 4111 1111 1111 1111", f"no 123 {CARD_MARK}"),
        ("no 555 4111 1111 1111 1111", f"no 555 {CARD_MARK}"),
        ("4111111111111112, 1732800000000, 0.4111111111111111, 41111111111111111111111", None),
    ],
)
def test_addresses_and_card_numbers_are_taken_out(said: str, left: str | None) -> None:
    decision = Redaction().before(seen(body_of(said)))
    assert decision == (Pass() if left is None else Changed(body_of(left)))


def test_what_is_taken_out_can_be_chosen() -> None:
    said = "max@example.com 4111111111111111"
    assert Redaction(["emails"]).before(seen(body_of(said))) == Changed(body_of(f"{EMAIL_MARK} 4111111111111111"))
    assert Redaction(["cards"]).before(seen(body_of(said))) == Changed(body_of(f"max@example.com {CARD_MARK}"))
    for wrong in ([], "emails", ["phones"]):
        with pytest.raises(ValueError, match="what: give a list"):
            Redaction(wrong)


def test_what_is_no_text_stays_and_what_is_not_changed_stays_byte_for_byte() -> None:
    body = rb'{ "max@example.com" : "\ud83d \u0041", "n": 4111111111111111, "x":[ "a@b.de", 1.10]}'
    assert Redaction().before(seen(body)) == Changed(body.replace(b"a@b.de", EMAIL_MARK.encode()))
    data = b"QUJD" * 16
    body = rb'{"a":"\"b\\","c":{"signature":"%b","data":["e",""]},"u":"data:image/png;base64,YWxs"}' % data
    assert list(texts_in(body)) == ['"b\\', "e", ""]
    assert list(texts_in(b'{"signature":"openai-responses-v1|rs_1|%b"}' % data)) == []


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "data: project falcon"}]},
        {"messages": [{"role": "user", "content": "data:text/plain,project falcon"}]},
        {"messages": [{"role": "user", "content": "data:image/png;base64,QUJD project falcon"}]},
        {"source": {"type": "text", "media_type": "text/plain", "data": "about project falcon" * 9}},
        {"content": [{"type": "tool_use", "input": {"data": "project falcon", "signature": "x"}}]},
    ],
)
def test_a_text_is_one_wherever_it_stands_and_however_it_begins(body: dict[str, Any]) -> None:
    """What is looked for must not pass by standing where data may."""
    refusal = Patterns({"codename": "project falcon"}).before(seen(json.dumps(body).encode()))
    assert refusal == Refuse("it has `codename` in it")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), values, max_size=5), st.booleans())
def test_changing_texts_leaves_json_json(order: dict[str, Any], is_ascii: bool) -> None:
    body = json.dumps(order, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    assert with_texts(body, lambda text: text) == body
    found = with_texts(body, lambda text: text + "!")
    texts = list(texts_in(body))
    assert [text + "!" for text in texts] == list(texts_in(found))
    assert json.dumps(json.loads(found)).count("!") >= len(texts)
