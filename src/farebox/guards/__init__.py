"""Guards: code that looks at orders and answers. What they are is in `core.guards`; how to write one, in
docs/guards.md."""

from farebox.core.guards import AnswerView, Changed, Decision, Guard, OrderView, Pass, Refuse

__all__ = ["AnswerView", "Changed", "Decision", "Guard", "OrderView", "Pass", "Refuse"]
