"""PromQL that can only see one project.

An expression is parsed, printed anew with the project's matchers in every selector, and parsed again; each selector of
the result is checked for the matchers, and what it prints as must be the same text. Nothing of the caller's text
reaches Prometheus as it was: only what the printer writes. What the printer does not know is refused.

The parser takes quadratic time and overflows its stack on deeply nested expressions; those are refused before. It would
compile every regular expression, whatever that costs: it sees none, and Prometheus says whether they are valid.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import copysign, isinf
from secrets import token_hex
from typing import Any

import promql_parser as parser

from chassis.errors import Malformed

#: Characters of all expressions of a request.
MOST_CHARACTERS = 16_384
#: Operators and brackets of them: a bound of their depth.
MOST_OPERATORS = 400

#: Or a quote alone, which begins no string here; the parser would read on over the end of the line.
_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"' r"|'(?:\\.|[^'\\\n])*'" r"|`[^`]*`|#[^\r\n]*" r"|[\"'`]")
#: A string of an expression without comments and raw strings, with the operator for regular expressions before it.
_STRING = re.compile(r"(?:([=!]~)(\s*))?" r'("(?:\\.|[^"\\\n])*"' r"|'(?:\\.|[^'\\\n])*')")
_OPERATOR = re.compile(r"[-+*/%^(\[,<>]|[=!]=|\b(?:and|or|unless|atan2)\b", re.IGNORECASE)

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_AT_SECONDS = re.compile(r"@ (\d{1,15}\.\d{3})")
#: Of an expression without strings and comments.
_BEFORE_1970 = re.compile(r"@\s*-")
_DECIMAL = re.compile(r"(?<![\w.:])(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)

#: The greatest number of a duration that the parser reads.
_MOST_MILLISECONDS = 2**32 - 1

#: They read series that no selector of the expression names.
_REFUSED_FUNCTIONS = frozenset({"info"})


class _Refused(Exception):
    """What an expression may not hold; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The series that a caller may see."""

    tenant_id: str
    project_id: str

    @property
    def matchers(self) -> Mapping[str, str]:
        """By label name, the value that it must have."""
        return {"project_id": self.project_id, "tenant_id": self.tenant_id}

    @property
    def selector(self) -> str:
        """All series of the scope."""
        return "{" + ",".join(f"{name}={_quoted(value)}" for name, value in self.matchers.items()) + "}"


def restrict(expression: str, scope: Scope) -> str:
    """The expression, seeing only the scope's series. Raises Malformed where it is no expression, or a refused one."""
    patterns = _Patterns()
    return _restricted(_parse_foreign(expression, patterns), scope, patterns)


def restrict_selector(selector: str, scope: Scope) -> str:
    """The same for a `match[]`, which must be one selector of an instant vector."""
    patterns = _Patterns()
    tree = _parse_foreign(selector, patterns)
    restricted = _restricted(tree, scope, patterns)
    if not isinstance(tree, parser.VectorSelector) or tree.offset is not None or tree.at is not None:
        raise Malformed(f"{selector[:200]!r} is not a series selector.")
    return restricted


def _restricted(tree: Any, scope: Scope, patterns: "_Patterns") -> str:
    try:
        printed = _Printer(scope.matchers, patterns).print(tree)
        if _Checker(scope.matchers, patterns).print(patterns.parse(printed)) != printed:
            raise _Refused("it would not keep its meaning")
    except _Refused as refusal:
        raise Malformed(f"This expression is refused: {refusal}.") from refusal
    except RecursionError as error:
        raise Malformed("This expression is nested too deeply.") from error
    except (OverflowError, ValueError) as error:  # of the parser's, when a duration is read out of the tree
        raise Malformed("This expression holds a duration that is too long.") from error
    return printed


def refuse_oversized(*expressions: str) -> None:
    """Raises Malformed where parsing a request's expressions would cost too much, here or in Prometheus."""
    if sum(map(len, expressions)) > MOST_CHARACTERS:
        raise Malformed(f"The expressions of a request may have {MOST_CHARACTERS} characters.")
    if sum(1 for each in expressions for _ in _OPERATOR.finditer(_bare(each))) > MOST_OPERATORS:
        raise Malformed(f"The expressions of a request may have {MOST_OPERATORS} operators and brackets.")


def _bare(expression: str) -> str:
    """Without what strings and comments say. Raises Malformed where a string has no end."""
    return _STRING_OR_COMMENT.sub(_emptied, expression)


def _emptied(token: re.Match[str]) -> str:
    if token[0].startswith("#"):
        return " "
    if len(token[0]) == 1:
        raise Malformed("This is no PromQL expression: a string in it does not end.")
    return '""'


def _refuse_unreadable(expression: str) -> None:
    """Raises Malformed for what the parser reads as something else: times before 1970, and numbers too great."""
    bare = _bare(expression)
    if _BEFORE_1970.search(bare):
        raise Malformed("This expression is refused: @ takes no time before 1970.")
    if any(isinf(float(number)) for number in _DECIMAL.findall(bare)):
        raise Malformed("This is no PromQL expression: a number in it is too great.")


def _parse_foreign(expression: str, patterns: "_Patterns") -> Any:
    """Parses what a caller wrote."""
    refuse_oversized(expression)
    _refuse_unreadable(expression)
    return patterns.parse(_STRING_OR_COMMENT.sub(_for_the_parser, expression))


def _for_the_parser(token: re.Match[str]) -> str:
    """Without comments, so that none can end elsewhere; the parser takes backslashes of raw strings for escapes."""
    if token[0].startswith("#"):
        return " "
    return _quoted(token[0][1:-1]) if token[0].startswith("`") else token[0]


def seconds(duration: str) -> float:
    """Of a duration such as 1h30m. Raises Malformed."""
    length: timedelta = _read(parser.parse_duration, duration, "duration")
    return length.total_seconds()


class _Patterns:
    """Keeps the regular expressions of one expression from the parser, to which `=~"x"` is `="x"` with a mark before x.

    The marks are random, so that no string that a caller wrote begins with one.
    """

    def __init__(self) -> None:
        self._marks = {operator: token_hex(8) for operator in ("=~", "!~")}

    def parse(self, expression: str) -> Any:
        """Parses an expression without comments and raw strings."""
        return _read(parser.parse, _STRING.sub(self._marked, expression), "PromQL expression", self._unmarked)

    def matcher(self, node: Any) -> tuple[str, str]:
        """Operator and text of a matcher, as they were written."""
        if node.op == parser.MatchOp.NotEqual:
            return "!=", node.value
        if node.op != parser.MatchOp.Equal:
            raise _Refused("a matcher is not known here")
        operator = next((each for each, mark in self._marks.items() if node.value.startswith(mark)), "=")
        return operator, node.value.removeprefix(self._marks.get(operator, ""))

    def _marked(self, token: re.Match[str]) -> str:
        operator, blank, string = token.groups()
        if operator is None:
            return string
        # After a space, or `!=~` would become an operator.
        return f" ={blank}{string[0]}{self._marks[operator]}{string[1:]}"

    def _unmarked(self, message: str) -> str:
        for mark in self._marks.values():
            message = message.replace(mark, "")
        return message


def _read(reader: Callable[[str], Any], text: str, what: str, shown: Callable[[str], str] = str) -> Any:
    try:
        return reader(text)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"This is no {what}: {shown(str(error))[:500]}.") from error
    except BaseException as panic:
        if type(panic).__name__ != "PanicException":  # of the parser, for numbers that it did not expect
            raise
        raise Malformed(f"This is no {what}.") from panic


class _Printer:
    """Prints a tree, with further matchers in every selector."""

    def __init__(self, matchers: Mapping[str, str], patterns: _Patterns) -> None:
        self._matchers = matchers
        self._patterns = patterns
        self._printers: Mapping[type, Callable[[Any], str]] = {
            parser.NumberLiteral: lambda node: _number(node.val),
            parser.StringLiteral: lambda node: _quoted(node.val),
            parser.VectorSelector: lambda node: self._selector(node) + _at(node) + _offset(node),
            parser.MatrixSelector: self._window,
            parser.SubqueryExpr: self._subquery,
            parser.ParenExpr: lambda node: f"({self.print(node.expr)})",
            parser.UnaryExpr: lambda node: f"-{self.print(node.expr)}",
            parser.Call: self._call,
            parser.AggregateExpr: self._aggregation,
            parser.BinaryExpr: lambda node: f"{self.print(node.lhs)} {_operator(node)} {self.print(node.rhs)}",
        }

    def print(self, node: Any) -> str:
        """The node as PromQL. Raises _Refused where it holds what this printer does not know."""
        printer = self._printers.get(type(node))
        if printer is None:
            raise _Refused(f"{type(node).__name__} is not known here")
        return printer(node)

    def _window(self, node: Any) -> str:
        selector = node.vector_selector
        return f"{self._selector(selector)}[{_duration(node.range)}]{_at(selector)}{_offset(selector)}"

    def _subquery(self, node: Any) -> str:
        step = "" if node.step is None else _duration(node.step)
        return f"{self.print(node.expr)}[{_duration(node.range)}:{step}]{_at(node)}{_offset(node)}"

    def _selector(self, node: Any) -> str:
        if node.matchers.or_matchers:
            raise _Refused("'or' between matchers is not supported")
        printed = self._enforce([self._matcher(matcher) for matcher in node.matchers.matchers])
        if node.name is not None and not _METRIC_NAME.fullmatch(node.name):
            raise _Refused("a metric's name is not known here")
        return f"{node.name or ''}{{{','.join(printed)}}}"

    def _matcher(self, node: Any) -> str:
        operator, text = self._patterns.matcher(node)
        return f"{_label(node.name)}{operator}{_quoted(text)}"

    def _enforce(self, printed: list[str]) -> list[str]:
        """A selector's printed matchers and the enforced ones."""
        return [*printed, *(f"{name}={_quoted(value)}" for name, value in self._matchers.items())]

    def _call(self, node: Any) -> str:
        if node.func.name in _REFUSED_FUNCTIONS:
            raise _Refused(f"the function {node.func.name} is not supported")
        return f"{node.func.name}({', '.join(self.print(argument) for argument in node.args)})"

    def _aggregation(self, node: Any) -> str:
        parameter = "" if node.param is None else f"{self.print(node.param)}, "
        grouping = ""
        if node.modifier is not None:
            by = node.modifier.type == parser.AggModifierType.By
            grouping = f" {'by' if by else 'without'} {_labels(node.modifier.labels)} "
        return f"{node.op}{grouping}({parameter}{self.print(node.expr)})"


class _Checker(_Printer):
    """Prints a tree as it is. Raises _Refused unless every selector of it holds every enforced matcher."""

    def _enforce(self, printed: list[str]) -> list[str]:
        if not set(printed).issuperset(super()._enforce([])):
            raise _Refused("a selector would see more than its project")
        return printed


def _operator(node: Any) -> str:
    """A binary operator with its modifiers."""
    operator, modifier = str(node.op), node.modifier
    if modifier is None:
        return operator
    parts = [operator]
    if modifier.return_bool:
        parts.append("bool")
    if modifier.matching is not None:
        included = modifier.matching.type == parser.LabelModifierType.Include
        parts.append(f"{'on' if included else 'ignoring'} {_labels(modifier.matching.labels)}")
    if modifier.card == parser.VectorMatchCardinality.ManyToOne:
        parts.append(f"group_left {_labels(modifier.group_labels or [])}")
    elif modifier.card == parser.VectorMatchCardinality.OneToMany:
        parts.append(f"group_right {_labels(modifier.group_labels or [])}")
    if modifier.fill_values.lhs is not None or modifier.fill_values.rhs is not None:
        raise _Refused("fill modifiers are not supported")
    return " ".join(parts)


def _labels(names: list[str]) -> str:
    return f"({', '.join(_label(name) for name in names)})"


def _label(name: str) -> str:
    return name if _LABEL_NAME.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    """A string literal that Go reads as this text."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\x{ord(match[0]):02x}", escaped) + '"'


def _number(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if copysign(1.0, value) < 0 else "0"
    return repr(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _duration(length: timedelta) -> str:
    milliseconds = length // timedelta(milliseconds=1)
    if milliseconds < 0 or length % timedelta(milliseconds=1):
        raise _Refused("durations are whole milliseconds")
    if milliseconds <= _MOST_MILLISECONDS:
        return f"{milliseconds}ms"
    days, rest = divmod(milliseconds, 86_400_000)
    return f"{days}d{rest}ms" if rest else f"{days}d"


def _offset(node: Any) -> str:
    if node.offset is None:
        return ""
    if node.offset < timedelta(0):
        return f" offset -{_duration(-node.offset)}"
    return f" offset {_duration(node.offset)}"


def _at(node: Any) -> str:
    if node.at is None:
        return ""
    if node.at.type == parser.AtModifierType.Start:
        return " @ start()"
    if node.at.type == parser.AtModifierType.End:
        return " @ end()"
    # Its text, because reading `node.at.at` panics for times before 1970, which the text would show as 1970.
    seconds = _AT_SECONDS.fullmatch(str(node.at))
    if seconds is None:
        raise _Refused("@ takes a time in seconds")
    return f" @ {seconds[1]}"
