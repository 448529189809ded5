"""Reading whole answers of any format: as they are first, and mended if SDKs would reject them."""

from collections.abc import Callable

from msgspec.structs import replace

from farebox.core.errors import broken
from farebox.core.formats import Seen
from farebox.core.formats.envelope import failure
from farebox.core.formats.mending import cost_before_the_break, cost_in
from farebox.core.legible import Fields, decode_fields, leniently, written
from farebox.core.reading import UNREADABLE, skip_to_json


def see_whole(
    body: bytes, essential: str, read: Callable[[bytes, bytes | None], Seen], mend: Callable[[Fields], object]
) -> Seen:
    """Read a whole answer. Blank lines and comments before its JSON are skipped.

    `read` decodes what SDKs accept, raises those of UNREADABLE for all else, and puts its second argument into
    `Seen.repaired`. `mend` repairs the members in place. A body without its `essential` member is not a valid answer.
    """
    text = skip_to_json(body)
    repaired = None if body.endswith(text) and not body[: len(body) - len(text)].strip() else text
    try:
        return leniently(lambda each: read(each, repaired), text)
    except UNREADABLE:
        try:
            fields = decode_fields(text)
        except UNREADABLE:
            cost = cost_before_the_break(text)
            return Seen(cost=cost, failure=broken("the upstream answered with something that is not JSON"))
    cost = cost_in(fields)
    if essential not in fields:
        return Seen(cost=cost, failure=failure(fields.get("error"), f"the upstream's answer has no {essential}"))
    mend(fields)
    mended = bytes(written(fields))
    try:
        return replace(leniently(lambda each: read(each, mended), mended), cost=cost)
    except UNREADABLE:
        # An unknown defect: some client may still make sense of the answer.
        return Seen(cost=cost)
