"""The other side of the contract without a switch: calls from audio files, in real time.

``SimulatedSwitch`` stands in for FreeSWITCH with mod_listen: workers cannot tell them apart.
``SimulatedCall`` is a call on it, whose caller is an audio file.
"""

from pylisten.simulator.call import SimulatedCall
from pylisten.simulator.switch import SimulatedSwitch

__all__ = ["SimulatedCall", "SimulatedSwitch"]
