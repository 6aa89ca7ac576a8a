"""YAML with positions: a file becomes a tree of values that know where they stand; YAML's traps are errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from ditr.spec.problems import Origin, PathSteps, Problem, did_you_mean, dotted

Scalar = None | bool | int | float | str
MOST_LEVELS = 50
"""Of maps and lists in each other; what is written by hand has no more than ten."""

MOST_CHARACTERS = 1_000_000
"""Of a file; the largest is a table of some thousand classes."""
_MOST_BYTES = 4 * MOST_CHARACTERS + 4
"""No character has more; a file that is longer is refused by what is read of it, for it need not end."""


@dataclass(frozen=True)
class Value:
    """A YAML value and where it was written."""

    data: Scalar | dict[str, Value] | tuple[Value, ...]
    origin: Origin
    key: Origin | None = None
    """Where its key stands, if it has one."""
    text: str = ""
    """A scalar as it was typed, without quotes."""
    quoted: bool = False

    def plain(self) -> object:
        """The value as plain dicts, lists and scalars."""
        if isinstance(self.data, dict):
            return {key: child.plain() for key, child in self.data.items()}
        if isinstance(self.data, tuple):
            return [child.plain() for child in self.data]
        return self.data

    def at(self, steps: PathSteps) -> Value | None:
        """The value at ``steps`` below this one, if it was written."""
        value = self
        for step in steps:
            if isinstance(value.data, dict) and step in value.data:
                value = value.data[str(step)]
            elif isinstance(value.data, tuple) and isinstance(step, int) and step < len(value.data):
                value = value.data[step]
            else:
                return None
        return value

    def nearest(self, steps: PathSteps) -> Value:
        """The value at ``steps``, or at the nearest written one above."""
        while (value := self.at(steps)) is None:
            steps = steps[:-1]
        return value

    def walk(self, above: PathSteps = ()) -> Iterator[tuple[PathSteps, Value]]:
        """Every value below this one with its path, parents first."""
        children: list[tuple[str | int, Value]] = []
        if isinstance(self.data, dict):
            children.extend(self.data.items())
        elif isinstance(self.data, tuple):
            children.extend(enumerate(self.data))
        for step, child in children:
            yield (*above, step), child
            yield from child.walk((*above, step))


@dataclass
class YamlText:
    """A parsed file: ``value`` is None where nothing could be read, then ``problems`` says why."""

    value: Value | None
    problems: list[Problem] = field(default_factory=list)


def read_yaml(path: Path) -> YamlText:
    """Parses ``path``, which must hold one map."""
    file = str(path)
    start = Origin(file, 1, 1)
    try:
        with path.open("rb") as content:
            text = content.read(_MOST_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        others = [other.name for other in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        return YamlText(None, [Problem(start, "", f"no such file{did_you_mean(path.name, others)}")])
    except OSError as error:
        return YamlText(None, [Problem(start, "", f"cannot be read: {error.strerror}")])
    except UnicodeDecodeError as error:
        good = error.object[: error.start].decode()
        place = Origin(file, good.count("\n") + 1, len(good) - (good.rfind("\n") + 1) + 1)
        return YamlText(None, [Problem(place, "", "not UTF-8; save the file as UTF-8")])
    source = parse(text, file=file)
    if source.value is not None and not isinstance(source.value.data, dict):
        what = "must be a map of keys, such as 'name: my_arm'; a key needs a colon and a space after it"
        source.problems.append(Problem(source.value.origin, "", what))
        source.value = None
    return source


def parse(text: str, *, file: str, override: bool = False) -> YamlText:
    """Parses YAML text; positions name ``file``, and are the file alone for an override."""
    start = Origin(file, 0, 0) if override else Origin(file, 1, 1)
    directive = re.match(r"(?:[ \t]*(?:#.*)?\r?\n)*%", text)
    if directive and not override:
        line = text[: directive.end()].count("\n") + 1
        return YamlText(None, [Problem(Origin(file, line, 1), "", "a YAML directive; remove this line")])
    if len(text) > MOST_CHARACTERS:
        return YamlText(None, [Problem(start, "", f"more than {MOST_CHARACTERS:,} characters")])
    if _bracket_levels(text) > MOST_LEVELS:  # the parser's time grows with their square
        return YamlText(None, [Problem(start, "", f"brackets nested more than {MOST_LEVELS} levels deep")])
    yaml = YAML()
    yaml.composer.warn_double_anchors = False  # every anchor is refused below, at its own place
    try:
        node = yaml.compose(text)
    except YAMLError as error:
        return YamlText(None, [_syntax_problem(error, text, start)])
    except RecursionError:
        return YamlText(None, [Problem(start, "", "nested too deeply")])
    if node is None:
        return YamlText(None, [Problem(start, "", "empty; a spec needs at least 'extends' or 'name'")])
    reader = _Reader(file, override)
    value = reader.value(node, path=(), key=None)
    if reader.anchored:
        return YamlText(None, [*_sharing_problems(text, start), *reader.problems])
    return YamlText(value, reader.problems)


@dataclass
class _Reader:
    """Turns YAML nodes into values and collects what YAML allows and a spec does not."""

    file: str
    override: bool
    problems: list[Problem] = field(default_factory=list)
    anchored: set[int] = field(default_factory=set)
    """The ids of anchored nodes."""

    def value(self, node: Node, *, path: PathSteps, key: Node | None) -> Value:
        origin = self.origin(node)
        key_origin = None if key is None else self.origin(key)
        if id(node) in self.anchored:  # YAML gives the anchored node itself in place of an alias
            return Value(None, origin)  # a few lines of aliases of aliases stand for more than a memory holds
        if node.anchor:
            self.anchored.add(id(node))
        if len(path) > MOST_LEVELS:
            self.say(key_origin or origin, path[:1], f"nested more than {MOST_LEVELS} levels deep")
            return Value(None, origin)
        return self.content(node, path, origin, key_origin)

    def content(self, node: Node, path: PathSteps, origin: Origin, key_origin: Origin | None) -> Value:
        if isinstance(node, MappingNode):
            return Value(self.children(node, path), origin, key_origin)
        if isinstance(node, SequenceNode):
            items = (self.value(item, path=(*path, number), key=None) for number, item in enumerate(node.value))
            return Value(tuple(items), origin, key_origin)
        assert isinstance(node, ScalarNode)
        if node.value == "" and not node.style and key_origin is not None:
            origin = key_origin  # YAML places an empty value where the next token stands
        return Value(self.scalar(node, path, origin), origin, key_origin, node.value, bool(node.style))

    def children(self, node: MappingNode, path: PathSteps) -> dict[str, Value]:
        children: dict[str, Value] = {}
        for key, child in node.value:
            origin = self.origin(key)
            if not isinstance(key, ScalarNode) or not _is_text(key.value):
                self.say(origin, path, "a key must be a word")
            elif str(key.tag).endswith(":merge"):
                self.say(origin, path, "a merge key (<<) is not supported; share values through 'extends'")
            elif key.value in children:
                first = children[key.value].key
                assert first is not None
                self.say(origin, (*path, key.value), f"written twice; the first is in line {first.line}")
            else:
                children[key.value] = self.value(child, path=(*path, key.value), key=key)
        return children

    def scalar(self, node: ScalarNode, path: PathSteps, origin: Origin) -> Scalar:
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        text: str = node.value
        if not _is_text(text):
            self.say(origin, path, "a character that stands for nothing; remove the escape that makes it")
            return ""
        if node.style or kind in ("str", "timestamp"):
            return text
        if kind == "null" and text.lower() in ("", "~", "null"):
            return None
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        with suppress(ValueError):  # what a tag says of a text need not be so
            if kind == "int":
                return self.whole_number(text, path, origin)
            if kind == "float":
                return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
        self.say(origin, path, f"a YAML tag (!!{kind}) is not supported; remove it")
        return text

    def whole_number(self, text: str, path: PathSteps, origin: Origin) -> int:
        if len(text) > 300:  # more than any float holds, and Python refuses to read numbers much longer
            self.say(origin, path, f"a number of {len(text)} digits is too long")
            return 0
        if re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", text):
            return int(text)
        digits = text.replace("_", "")
        if re.fullmatch(r"[-+]?[0-9]+", digits):
            sign = "-" if digits.startswith("-") else ""
            why = "underscores are not digits to every YAML reader" if "_" in text else "a leading zero may mean octal"
            self.say(origin, path, f"{text}: {why}; write {sign}{digits.lstrip('+-').lstrip('0') or '0'}")
            return int(digits)
        number = int(digits, 0)
        self.say(origin, path, f"{text}: write the number in decimal, {number}")
        return number

    def origin(self, node: Node) -> Origin:
        if self.override:
            return Origin(self.file, 0, 0)
        return Origin(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def say(self, origin: Origin, path: PathSteps, what: str) -> None:
        self.problems.append(Problem(origin, dotted(path), what))


def _sharing_problems(text: str, start: Origin) -> Iterator[Problem]:
    """The first anchor and the first alias, with how many there are: one of them may be meant a thousand times."""
    events = [event for event in YAML().parse(text) if getattr(event, "anchor", None)]
    for alias, what in (
        (False, "an anchor (&{name}) is not supported; share values through 'extends'"),
        (True, "an alias (*{name}) is not supported; write the value or use 'extends'"),
    ):
        found = [event for event in events if isinstance(event, AliasEvent) == alias]
        if found:
            mark = found[0].start_mark
            place = Origin(start.file, mark.line + 1, mark.column + 1) if start.line else start
            count = f" ({len(found):,} of them)" if len(found) > 1 else ""
            yield Problem(place, "", what.format(name=found[0].anchor) + count)


def _bracket_levels(text: str) -> int:
    """Of brackets and braces that are open at once; those in quotes and comments count too."""
    steps = (1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", text))
    return max(accumulate(steps), default=0)


def _is_text(text: str) -> bool:
    """Whether a file can hold it, and a file's name; an escape may make half a character, or the one of number 0."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _syntax_problem(error: YAMLError, text: str, start: Origin) -> Problem:
    if isinstance(error, ReaderError):
        line = text[: error.position].count("\n") + 1
        col = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        place = Origin(start.file, line, col) if start.line else start
        return Problem(place, "", f"the character U+{ord(text[error.position]):04X} is not allowed in YAML; remove it")
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return Problem(start, "", f"not YAML: {error}")
    mark = error.problem_mark
    if error.context_mark and re.search(_BEGINS_EARLIER, error.problem or ""):
        mark = error.context_mark
    place = Origin(start.file, mark.line + 1, mark.column + 1) if start.line else start
    return Problem(place, "", _in_our_words(error.problem or ""))


_BEGINS_EARLIER = r"expected ',' or|end of stream|could not find expected ':'"
"""Where YAML complains about the end of something, and its beginning is the place to look at."""
_SYNTAX = (
    (r"character '\\t'", "a tab; YAML indents with spaces"),
    (r"cannot start any token", "a value cannot start with this character; put the value in quotes"),
    (r"another document", "a second document ('---'); a file holds one spec"),
    (r"mapping values are not allowed", "a colon that YAML does not expect; check the indentation, or quote the value"),
    (r"expected <block end>", "this line does not fit the lines above; check the indentation and brackets"),
    (r"expected ',' or", "this bracket is not closed, or a comma is missing after an item"),
    (r"end of stream", "this quote is not closed"),
    (r"could not find expected ':'", "a key without a colon"),
    (r"sequence entries are not allowed", "a list cannot begin here; put each '- item' on a line of its own"),
    (r"expected the node content", "a value is missing here, or must be put in quotes"),
    (r"expected '<document start>'", "this does not belong to the map above; check the indentation"),
    (r"expected (alphabetic|URI|'>')", "a value cannot start with '&', '*' or '!'; put the value in quotes"),
    (r"undefined alias", "an alias (*name) is not supported; write the value or use 'extends'"),
)


def _in_our_words(problem: str) -> str:
    for pattern, words in _SYNTAX:
        if re.search(pattern, problem):
            return words
    return f"not YAML: {problem}"
