"""What OpenRouter's list of models that make videos says of their prices, which stand nowhere else.

Sources: OpenRouter's OpenAPI document (`/videos/models`), its pages on videos, and prices that others read there: under
names that each host makes up, such as `duration_seconds_with_audio_720p`, `cents_per_second_output`, `video_tokens`.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType

from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Decoder
from msgspec.structs import replace

from farebox.core.legible import decoded_or
from farebox.core.pricing import PricedModel, Prices
from farebox.core.reading import UNREADABLE

FRAMES = 30
"""Most frames in a second: hosts make 16 to 30."""

PIXELS_PER_TOKEN = 1024
"""Of a frame. OpenRouter counts width x height x frames / 1024."""

_PIXELS: Mapping[str, int] = MappingProxyType(
    {"360p": 640 * 360, "480p": 854 * 480, "720p": 1280 * 720, "768p": 1366 * 768, "1080p": 1920 * 1080}
    | {"1K": 1920 * 1080, "2K": 2560 * 1440, "4K": 3840 * 2160}
)
_WIDER = Decimal("1.3125")
"""How many times the pixels of 16:9 the widest frame has (21:9)."""


class _Entry(Struct):
    id: str
    pricing_skus: dict[str, Decimal] | None = None
    supported_durations: list[int] | None = None
    supported_resolutions: list[str] | None = None
    supported_sizes: list[str] | None = None


class _Looks(Struct):
    """What such an entry has, and no other model's."""

    pricing: Raw | UnsetType = UNSET
    pricing_skus: Raw | UnsetType = UNSET
    supported_durations: Raw | UnsetType = UNSET


_decode = Decoder(_Entry, strict=False).decode
_decode_looks = Decoder(_Looks).decode


def is_of_videos(raw: Raw) -> bool:
    """Whether an entry is of the list of models that make videos."""
    looks = decoded_or(_decode_looks, raw, _Looks())
    return looks.pricing is UNSET and (looks.pricing_skus is not UNSET or looks.supported_durations is not UNSET)


def with_videos(models: list[PricedModel], entries: Iterable[Raw]) -> list[PricedModel]:
    """Models with what those entries say of a second's price, and of the longest video. What cannot be read is left
    out: then a second is taken to cost what is assumed."""
    found: dict[str, _Entry] = {}
    for raw in entries:
        try:
            entry = _decode(raw)
        except UNREADABLE:
            continue
        found[entry.id] = entry
    return [_with(model, found[model.id]) if model.id in found else model for model in models]


def _with(model: PricedModel, entry: _Entry) -> PricedModel:
    second = max((_of_a_second(name, price, entry) for name, price in (entry.pricing_skus or {}).items()), default=None)
    prices = model.prices
    if second is not None and second > 0 and not any(each.video_second for each in prices):
        prices = tuple(_priced(each, second) for each in prices)
    longest = max((seconds for seconds in entry.supported_durations or () if seconds > 0), default=0)
    return replace(model, prices=prices, video_seconds_max=longest)


def _priced(prices: Prices, second: Decimal) -> Prices:
    named = {name: getattr(prices, name) for name in Prices.__struct_fields__}
    return Prices(**{**named, "video_second": second})


def _of_a_second(name: str, price: Decimal, entry: _Entry) -> Decimal:
    """What a second costs at most at one of a model's prices. One whose unit its name does not say is taken for that of
    a second: of a whole video it is too high, and a picture's, say, is far below."""
    if not price.is_finite() or price < 0:
        return Decimal(0)
    usd = price / 100 if name.startswith("cents") else price
    if "megapixel" in name:
        return usd * _frame(entry) / 1_000_000
    return usd * _frame(entry) * FRAMES / PIXELS_PER_TOKEN if "token" in name else usd


def _frame(entry: _Entry) -> Decimal:
    """The pixels of a model's largest frame."""
    sizes = [width_height.split("x") for width_height in entry.supported_sizes or ()]
    exact = [int(each[0]) * int(each[1]) for each in sizes if len(each) == 2 and all(side.isdigit() for side in each)]
    if exact:
        return Decimal(max(exact))
    named = [_PIXELS.get(each, _PIXELS["4K"]) for each in entry.supported_resolutions or ("4K",)]
    return max(named, default=_PIXELS["4K"]) * _WIDER
