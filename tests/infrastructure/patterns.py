"""Which events a rule of EventBridge matches: our own reading of the guide, so that no emulator judges itself.

Source: EventBridge User Guide, `eb-create-pattern-operators` and `eb-event-patterns-arrays`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def matches(pattern: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Whether all fields of `pattern` match; raises ValueError for an operator that this reader doesn't know."""
    for name, wanted in pattern.items():
        if name == "$or":
            if not any(matches(branch, event) for branch in wanted):
                return False
        elif isinstance(wanted, Mapping):
            inner = event.get(name)
            if not matches(wanted, inner if isinstance(inner, Mapping) else {}):
                return False
        elif not any(_fits(condition, event, name) for condition in wanted):
            return False
    return True


def complexity(pattern: Mapping[str, Any]) -> int:
    """The largest of the pattern's fields: in how many places among wildcard texts a value can be at the same time.

    A place counts once for each condition that can still come of it; texts after `anything-but` are one condition.
    Source: aws/event-ruler, `MachineComplexityEvaluator`, which is what EventBridge is made of. Its issue 269 has four
    texts like `*/lib/*` after `anything-but` at 7, which this gives, too.
    """
    fields = (wanted for name, wanted in pattern.items() if name != "$or")
    return max((complexity(w) if isinstance(w, Mapping) else _places(_texts(w)) for w in fields), default=0)


def _texts(conditions: Sequence[Any]) -> dict[str, int]:
    """Wildcard texts of a field, each with its condition."""
    texts: dict[str, int] = {}
    for number, condition in enumerate(conditions):
        if isinstance(condition, Mapping):
            inner = condition.get("anything-but", condition)
            found = inner.get("wildcard", []) if isinstance(inner, Mapping) else []
            texts |= dict.fromkeys(found if isinstance(found, list) else [found], number)
    return texts


def _places(texts: Mapping[str, int]) -> int:
    """A place is what was read of a text, which texts that begin alike share."""
    places = {text[:length] for text in texts for length in range(len(text) + 1)}
    leads_to = {place: {number for text, number in texts.items() if text.startswith(place)} for place in places}
    characters = {character for text in texts for character in text}  # a `*` stands for those that are in none

    def reached(found: set[str]) -> frozenset[str]:
        return frozenset(found | {f"{place}*" for place in found} & places)

    seen = todo = {reached({""})}
    while todo:
        following = {
            reached({place + c for place in at} & places | {place for place in at if place.endswith("*")})
            for at in todo
            for c in characters
        }
        todo = following - seen
        seen = seen | following
    return max(sum(len(leads_to[place]) for place in at if place) for at in seen)


def _fits(condition: Any, event: Mapping[str, Any], name: str) -> bool:
    if isinstance(condition, Mapping) and "exists" in condition:
        return (name in event and not isinstance(event[name], Mapping)) is condition["exists"]
    if name not in event:
        return False
    # Of an array, any one element.
    values = event[name] if isinstance(event[name], list) else [event[name]]
    return any(_is(condition, value) for value in values)


def _is(condition: Any, value: Any) -> bool:
    if not isinstance(condition, Mapping):
        return bool(condition == value) and isinstance(condition, bool) is isinstance(value, bool)
    ((operator, operand),) = condition.items()
    if operator == "anything-but":
        if isinstance(operand, Mapping):
            ((negated, texts),) = operand.items()
            texts = texts if isinstance(texts, list) else [texts]
            return isinstance(value, str) and not any(_ON_TEXT[negated](value, text) for text in texts)
        others = operand if isinstance(operand, list) else [operand]
        return not any(_is(other, value) for other in others)
    if operator not in _ON_TEXT:
        raise ValueError(f"an operator that these tests do not know: {operator}")
    return isinstance(value, str) and _ON_TEXT[operator](value, operand)


def _wildcard(value: str, text: str) -> bool:
    expression = ".*".join(re.escape(part) for part in text.split("*"))
    return re.fullmatch(expression, value, re.DOTALL) is not None


_ON_TEXT: Mapping[str, Callable[[str, str], bool]] = {
    "prefix": str.startswith,
    "suffix": str.endswith,
    "wildcard": _wildcard,
}
