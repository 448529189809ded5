"""Who is told of troubles: the use cases of managers, by command, over HTTP and in the console."""

import secrets
from collections.abc import Sequence

from farebox import clock
from farebox.accounts import LABEL_LENGTH_MAX, BadTerms, NotFound
from farebox.alerting import attempt, new_id
from farebox.core.alerts import FORMS, KINDS, LOW_NANOS, OF_ACCOUNTS, TEST, Delivery, Form, Receiver, delivery
from farebox.core.webhooks import SECRET_BYTES, check_url, secret_of
from farebox.ports import AlertShelf, Webhooks

RECEIVERS_MAX, ACCOUNT_RECEIVERS_MAX = 100, 10
"""How many the operator may have, and each account: so no account's manager takes the operator's."""

_TESTED = "This is a test: alerts arrive here"


class Alerts:
    """The use cases over a store. `may_be_private`: alerts may go to addresses within the gateway's own network."""

    def __init__(self, shelf: AlertShelf, webhooks: Webhooks, *, may_be_private: bool) -> None:
        self._shelf = shelf
        self._webhooks = webhooks
        self._may_be_private = may_be_private

    def check(self, url: str, label: str, form: str, kinds: Sequence[str], account_id: int | None) -> Form:
        """Raises BadTerms where `add` would, but for their number."""
        if form not in FORMS:
            raise BadTerms(f"form: {form[:40]!r} is none; there are {', '.join(FORMS)}")
        try:
            check_url(url, may_be_private=self._may_be_private)
        except ValueError as error:
            raise BadTerms(f"url: {error}") from error
        if len(label) > LABEL_LENGTH_MAX or not (label.isprintable() or not label):
            raise BadTerms(f"label: at most {LABEL_LENGTH_MAX} printable characters")
        known = tuple(KINDS) if account_id is None else OF_ACCOUNTS
        if wrong := [kind for kind in kinds if kind not in known]:
            raise BadTerms(f"kinds: {wrong[0][:40]!r} is none here; there are {', '.join(known)}")
        return "slack" if form == "slack" else "webhook"

    async def add(
        self,
        url: str,
        label: str = "",
        form: str = "webhook",
        kinds: Sequence[str] = (),
        account_id: int | None = None,
    ) -> Receiver:
        """Have alerts sent to a URL: of these kinds (all, where none is given), and of one account or of all. The
        secret that signs them is to be shown once. Raises BadTerms."""
        checked = self.check(url, label, form, kinds, account_id)
        most = RECEIVERS_MAX if account_id is None else ACCOUNT_RECEIVERS_MAX
        if sum(each.account_id == account_id for each in await self._shelf.receivers()) >= most:
            whose = "" if account_id is None else " of this account"
            raise BadTerms(f"there are {most} receivers{whose} already; remove one first")
        known = tuple(KINDS) if account_id is None else OF_ACCOUNTS
        wanted = [kind for kind in known if kind in kinds or not kinds]
        secret = secret_of(secrets.token_bytes(SECRET_BYTES)) if checked == "webhook" else None
        return await self._shelf.add_receiver(label, url, checked, secret, wanted, account_id, clock.now_us())

    async def receivers(self, account_id: int | None = None) -> list[Receiver]:
        """Those of one account, or all."""
        return [each for each in await self._shelf.receivers() if account_id in (None, each.account_id)]

    async def find(self, receiver_id: int, account_id: int | None = None) -> Receiver:
        """One of these. Raises NotFound."""
        for each in await self.receivers(account_id):
            if each.id == receiver_id:
                return each
        raise NotFound(f"nothing is told under the number {receiver_id}; `farebox alert list` shows the receivers")

    async def remove(self, receiver: Receiver) -> None:
        """Tell it nothing any more; what is on its way is dropped."""
        await self._shelf.drop_receiver(receiver.id)

    async def test(self, receiver: Receiver) -> Delivery:
        """Send a test now, once, and tell what became of it."""
        now_us = clock.now_us()
        sent = delivery(receiver, new_id(), TEST, _TESTED, {}, now_us, clock.iso(now_us))
        done = await attempt(self._webhooks, receiver, sent, clock.now_us, is_last=True)
        await self._shelf.put_delivery(done)
        return done

    async def deliveries(
        self, receiver_id: int | None, account_id: int | None, most: int, before: str = ""
    ) -> list[Delivery]:
        """The latest, those behind the one of the id `before`: to one receiver, to those of one account, or to all."""
        return await self._shelf.deliveries(receiver_id, account_id, most, before)

    # Below what an account is low

    async def low_balance(self, account_id: int) -> int:
        """In nano-dollars; 0: never."""
        own = await self._shelf.low_balance(account_id)
        return LOW_NANOS if own is None else own

    async def set_low_balance(self, account_id: int, below_nanos: int | None) -> int:
        """0: never; None: as where nothing was set. What holds now."""
        await self._shelf.set_low_balance(account_id, below_nanos)
        return await self.low_balance(account_id)
