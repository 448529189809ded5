"""Shipped fakes: books in memory, an upstream that plays a script, a biller that counts; and the playbook, which sends
one order through them. For our tests and others'."""

from farebox.testing.biller import CountingBiller, Fault
from farebox.testing.memory import MemoryStore
from farebox.testing.playbook import PRICES, During, Playbook, Played
from farebox.testing.scripted import Break, Forwarded, Pause, Script, ScriptedReply, ScriptedUpstream, Silence, Step

__all__ = [
    "PRICES",
    "Break",
    "CountingBiller",
    "During",
    "Fault",
    "Forwarded",
    "MemoryStore",
    "Pause",
    "Playbook",
    "Played",
    "Script",
    "ScriptedReply",
    "ScriptedUpstream",
    "Silence",
    "Step",
]
