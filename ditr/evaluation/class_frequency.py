"""How frequent the 200 classes are in ScanNet200's training set: its benchmark's head, common and tail."""

from __future__ import annotations

from typing import Literal

from ditr.data.classes import CLASS_NAMES

Frequency = Literal["head", "common", "tail"]

_COMMON = """
cushion | end table | dining table | keyboard | bag | toilet paper | printer | blanket | microwave | shoe |
computer tower | bottle | bin | ottoman | bench | basket | fan | laptop | person | paper towel dispenser | oven |
rack | piano | suitcase | rail | container | telephone | stand | light | laundry basket | pipe | seat | column |
bicycle | ladder | jacket | storage bin | coffee maker | dishwasher | machine | mat | windowsill | bulletin board |
fireplace | mini fridge | water cooler | shower door | pillar | ledge | furniture | cart | decoration | closet door |
vacuum cleaner | dish rack | range hood | projector screen | divider | bathroom counter | laundry hamper |
bathroom stall door | ceiling light | trash bin | bathroom cabinet | structure | storage organizer | potted plant |
mattress
"""
_TAIL = """
paper | plate | soap dispenser | bucket | clock | guitar | toilet paper holder | speaker | cup | paper towel roll |
bar | toaster | ironing board | soap dish | toilet paper dispenser | fire extinguisher | ball | hat |
shower curtain rod | paper cutter | tray | toaster oven | mouse | toilet seat cover dispenser | storage container |
scale | tissue box | light switch | crate | power outlet | sign | projector | candle | plunger | stuffed animal |
headphones | broom | guitar case | dustpan | hair dryer | water bottle | handicap bar | purse | vent | shower floor |
water pitcher | bowl | paper bag | alarm clock | music stand | laundry detergent | dumbbell | tube | cd case |
closet rod | coffee kettle | shower head | keyboard piano | case of water bottles | coat rack | folded chair |
fire alarm | power strip | calendar | poster | luggage
"""


def _names(table: str) -> frozenset[str]:
    return frozenset(name.strip() for name in table.replace("\n", " ").split("|"))


def _frequency(name: str) -> Frequency:
    return "common" if name in _names(_COMMON) else "tail" if name in _names(_TAIL) else "head"


FREQUENCIES: dict[str, Frequency] = {name: _frequency(name) for name in CLASS_NAMES}
"""By class name: 66 are head, 68 common, 66 tail."""
