"""What a simulated model makes that is not counted in tokens alone: pictures, speech, transcripts, reranked lists."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from farebox.simulator.talk import Said


class Order(Protocol):
    """What an order asks for: each format has its own."""

    @property
    def model(self) -> str: ...

    @property
    def streamed(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Made(Said):
    """What was made, and what it costs whole. `tokens` are those that it counts as. Of what is sent in so many `pieces`
    and was broken off, those that were sent are charged; where it `is_indivisible`, all of it."""

    price: Decimal = Decimal(0)
    tokens: int = 0
    api_type: str = ""
    units: tuple[tuple[str, object], ...] = ()
    """Members of its usage beside tokens and cost."""
    pieces_made: int = 1
    is_indivisible: bool = True

    @property
    def answer_tokens(self) -> int:
        return self.tokens

    def cost(self, answer_tokens: int | None = None) -> Decimal:
        if answer_tokens is None or self.is_indivisible:
            return self.price
        return self.price * min(answer_tokens, self.pieces_made) / self.pieces_made
