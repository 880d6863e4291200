"""PromQL that can only see one project, whatever the expression."""

import time

import promql_parser as parser
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chassis.errors import Malformed
from services.gateway.promql import (
    MOST_CHARACTERS,
    MOST_OPERATORS,
    Scope,
    refuse_oversized,
    restrict,
    restrict_selector,
)

SCOPE = Scope(tenant_id="tenant-1", project_id="project-1")
ENFORCED = 'project_id="project-1",tenant_id="tenant-1"'


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("up", f"up{{{ENFORCED}}}"),
        ('{__name__=~".+"}', f'{{__name__=~".+",{ENFORCED}}}'),
        ('{"my.metric", "a.b"="c"}', f'{{__name__="my.metric","a.b"="c",{ENFORCED}}}'),
        ("sum by (le, plan) (rate(x_bucket[5m]))", f"sum by (le, plan) (rate(x_bucket{{{ENFORCED}}}[300000ms]))"),
        ("sum(x) without (a)", f"sum without (a) (x{{{ENFORCED}}})"),
        ("topk(3, x)", f"topk(3, x{{{ENFORCED}}})"),
        ('count_values("v", x)', f'count_values("v", x{{{ENFORCED}}})'),
        ("x offset 1m", f"x{{{ENFORCED}}} offset 60000ms"),
        ("x offset -1m", f"x{{{ENFORCED}}} offset -60000ms"),
        ("x[1500ms] @ 1609746000.5", f"x{{{ENFORCED}}}[1500ms] @ 1609746000.500"),
        ("x @ 0 offset -55y", f"x{{{ENFORCED}}} @ 0.000 offset -20075d"),
        ("max_over_time(x[1h:] @ 0.0004)", f"max_over_time(x{{{ENFORCED}}}[3600000ms:] @ 0.000)"),
        ("x @ start() offset 5m", f"x{{{ENFORCED}}} @ start() offset 300000ms"),
        ("max_over_time(x[10m:1m] @ end())", f"max_over_time(x{{{ENFORCED}}}[600000ms:60000ms] @ end())"),
        ("rate(x[1m])[1h:]", f"rate(x{{{ENFORCED}}}[60000ms])[3600000ms:]"),
        ("a / on (job) group_left (v) b", f"a{{{ENFORCED}}} / on (job) group_left (v) b{{{ENFORCED}}}"),
        ("a * ignoring (q) group_right () b", f"a{{{ENFORCED}}} * ignoring (q) group_right () b{{{ENFORCED}}}"),
        ("a unless on () b", f"a{{{ENFORCED}}} unless on () b{{{ENFORCED}}}"),
        ("a or b", f"a{{{ENFORCED}}} or b{{{ENFORCED}}}"),
        ("a >= bool 1", f"a{{{ENFORCED}}} >= bool 1"),
        ("-x ^ 2", f"-x{{{ENFORCED}}} ^ 2"),
        ("(-x) ^ 2", f"(-x{{{ENFORCED}}}) ^ 2"),
        ("2 ^ 3 ^ 2", "2 ^ 3 ^ 2"),
        ("1 - (2 - 3)", "1 - (2 - 3)"),
        ("vector(-1) + Inf", "vector(-1) + Inf"),
        ("1e-7", "1e-07"),
        ("1e308 * 1e-400", "1e+308 * 0"),
        ('x:1e400{a1e400="1e400 @ -5"} # 1e400', f'x:1e400{{a1e400="1e400 @ -5",{ENFORCED}}}'),
        ("0x1F", "31"),
        ("time()", "time()"),
        (
            'label_replace(x, "a", "$1", "b", "(.*)\\\\d")',
            f'label_replace(x{{{ENFORCED}}}, "a", "$1", "b", "(.*)\\\\d")',
        ),
        (r'x{a="q\"\\\n"}', f'x{{a="q\\"\\\\\\n",{ENFORCED}}}'),
        ("x{a=`}or up{`}", f'x{{a="}}or up{{",{ENFORCED}}}'),
        (r"x{a=~`\d+\.\w`}", rf'x{{a=~"\\d+\\.\\w",{ENFORCED}}}'),
        ('x{a=`"\\"\n#`} # `\\d`', f'x{{a="\\"\\\\\\"\\n#",{ENFORCED}}}'),
        ('x{"b.c"!~# of b\n`(`}', f'x{{"b.c"!~"(",{ENFORCED}}}'),
        ("x{a =~ 'it\\'s \"'}", f'x{{a=~"it\'s \\"",{ENFORCED}}}'),
        ('x{a="=~",b!="!~\\"y\\""}', f'x{{a="=~",b!="!~\\"y\\"",{ENFORCED}}}'),
        ('count_values("=~", x{a!~""})', f'count_values("=~", x{{a!~"",{ENFORCED}}})'),
        (r"""x{a="`\\",b='`'}""", rf'x{{a="`\\",b="`",{ENFORCED}}}'),
        ("rate(x[49d])", f"rate(x{{{ENFORCED}}}[4233600000ms])"),
        ("rate(x[50d])", f"rate(x{{{ENFORCED}}}[50d])"),
        ("x[1y1ms] offset 1y", f"x{{{ENFORCED}}}[365d1ms] offset 365d"),
        ("max_over_time(x[100y:50d] offset -1y)", f"max_over_time(x{{{ENFORCED}}}[36500d:50d] offset -365d)"),
        ('x # {project_id="other"}', f"x{{{ENFORCED}}}"),
        ("x # of one\r+ y # of \x0b\x85\u2028 another\n", f"x{{{ENFORCED}}} + y{{{ENFORCED}}}"),
        # What a caller writes about the project can only narrow it.
        ('x{project_id="other"}', f'x{{project_id="other",{ENFORCED}}}'),
        ('x{project_id=~".*"}', f'x{{project_id=~".*",{ENFORCED}}}'),
        ('x{tenant_id!="tenant-1"}', f'x{{tenant_id!="tenant-1",{ENFORCED}}}'),
    ],
)
def test_every_selector_gets_the_projects_matchers(expression: str, expected: str) -> None:
    assert restrict(expression, SCOPE) == expected
    assert restrict(expected, SCOPE).replace(f",{ENFORCED}", "") == expected.replace(f",{ENFORCED}", "")


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "up(",
        "up{",
        'x{a="b" or project_id="other"}',
        '{a="b" or c="d"}',
        "info(x)",
        'info(x, {a="b"})',
        "a + fill (0) b",
        "x @ -5",
        "x @ -0.0004",
        "x @ # {\n - 5",
        "max_over_time(x[1h:] @-1)",
        "1e400",
        "x > -1.E+400",
        "9" * 309,
        "x @ NaN",
        "x @ 1e30",
        "x offset 1e18",
        "x[1e20]",
        "x[5m:1e19]",
        "unknown_function(x)",
        'x{a!=~"b"}',
        'x{a==~"b"}',
        "x{a=~b}",
        'x{=~"b"}',
        'x{a=~"b"=~"c"}',
        'x =~ "b"',
        '1 ==~ "b"',
        '"a" !~ "b"',
        "x; up",
        "x\x00",
        '"unfinished',
    ],
)
def test_what_is_no_expression_or_a_refused_one(expression: str) -> None:
    with pytest.raises(Malformed):
        restrict(expression, SCOPE)


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 50_000 + "x" + ")" * 50_000,
        "-" * 50_000 + "x",
        "(" * 8_000,
        "x+" * 8_000 + "x",
        "abs(" * (MOST_OPERATORS + 1) + "x" + ")" * (MOST_OPERATORS + 1),
        'x{a="' + "b" * MOST_CHARACTERS + '"}',
        '# " \n' + "(" * 8_000 + '# "',
        "#\r" + "(" * 8_000,
        "#\r1" + "+1" * 8_000,
        "x" + " unless x" * 1_700,
    ],
)
def test_expressions_that_would_hurt_the_parser_never_reach_it(expression: str) -> None:
    with pytest.raises(Malformed, match="may have"):
        restrict(expression, SCOPE)


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_string_that_the_parser_would_end_elsewhere_never_reaches_it(quote: str) -> None:
    hidden = "1" + "+1" * 1_000
    with pytest.raises(Malformed, match="does not end"):
        restrict(f"count_values({quote}\n{quote}, {hidden}) + {quote}\n{quote}", SCOPE)


def test_a_match_that_would_hurt_the_parser_never_reaches_it() -> None:
    with pytest.raises(Malformed, match="may have"):
        restrict_selector("#\r1" + "+1" * 8_000, SCOPE)


def test_the_matches_of_a_request_are_bound_together() -> None:
    for many in (["x" * (MOST_CHARACTERS // 100 + 1)] * 100, ["x{a='b',c='d',e='f',g='h',i='j',k='l'}"] * 100):
        for each in many:
            refuse_oversized(each)
        with pytest.raises(Malformed, match="may have"):
            refuse_oversized(*many)


def test_the_parser_sees_no_regular_expression_so_none_costs_what_compiling_it_would() -> None:
    costly = ",".join(["b=~" + quoted(r"\pL{200}"), "c!~" + quoted(r"\w{100}")] * 190)
    before = time.process_time()
    assert restrict(f"a{{{costly}}}", SCOPE) == f"a{{{costly},{ENFORCED}}}"
    assert time.process_time() - before < 0.5


def test_an_invalid_regular_expression_is_prometheus_to_refuse() -> None:
    assert restrict('x{a=~"("}', SCOPE) == f'x{{a=~"(",{ENFORCED}}}'


def test_what_the_parser_says_of_a_regular_expression_is_what_was_written() -> None:
    with pytest.raises(Malformed, match="'up' or 'down'"):
        restrict('up{__name__=~"down"}', SCOPE)


def test_as_many_operators_as_are_allowed_are_nested_safely() -> None:
    deep = "abs(" * MOST_OPERATORS + "x" + ")" * MOST_OPERATORS
    wide = "x" + "+x" * MOST_OPERATORS
    for expression in (deep, wide):
        try:
            assert ENFORCED in restrict(expression, SCOPE)
        except Malformed as refusal:
            assert "nested too deeply" in refusal.message  # noqa: PT017 - either answer is safe


@pytest.mark.parametrize("selector", ["up", '{a="b"}', 'up{a=~"b|c"}'])
def test_a_match_is_one_selector(selector: str) -> None:
    assert ENFORCED in restrict_selector(selector, SCOPE)


@pytest.mark.parametrize(
    "selector", ["up[5m]", "rate(up[5m])", "up + up", "1", "up offset 5m", "up offset 1e18", "up @ 5", "{}", ""]
)
def test_a_match_is_nothing_else(selector: str) -> None:
    with pytest.raises(Malformed):
        restrict_selector(selector, SCOPE)


def test_a_scope_with_quotes_stays_one_value() -> None:
    scope = Scope(tenant_id='t"} or up{a="', project_id="p\\")
    assert restrict("x", scope) == r'x{project_id="p\\",tenant_id="t\"} or up{a=\""}'


NAMES = st.sampled_from(["up", "checkout_total", "a:b", "x_bucket", "sum", "by"])
LABELS = st.sampled_from(["plan", "le", "__name__x", "project_id", "tenant_id", "on"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
DURATIONS = st.sampled_from(["50d", "1ms", "5m", "1h30m", "1500ms", "90"])


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


EQUALITIES = st.builds(
    lambda name, operator, text: f"{name}{operator}{quoted(text)}", LABELS, st.sampled_from(["=", "!="]), TEXTS
)
#: Valid as regular expressions, whatever their order.
PATTERN_TEXTS = st.text(st.sampled_from("af0!=~\"'`#,|.\n"), max_size=12)
PATTERNS = st.builds(
    lambda name, operator, literal: f"{name}{operator}{literal}",
    LABELS,
    st.sampled_from(["=~", "!~", " =~ ", "!~\n"]),
    st.one_of(
        PATTERN_TEXTS.map(quoted),
        PATTERN_TEXTS.map(lambda text: "'" + text.replace("'", "\\'").replace("\n", "\\n") + "'"),
        PATTERN_TEXTS.map(lambda text: "`" + text.replace("`", "") + "`"),
        st.sampled_from(['"\\\\d+"', "'(a|b)?\\\\pL'"]),
    ),
)
MATCHERS = st.one_of(EQUALITIES, PATTERNS)
SELECTORS = st.builds(lambda name, matchers: f"{name}{{{','.join(matchers)}}}", NAMES, st.lists(MATCHERS, max_size=3))
TIMED = st.sampled_from(["", " offset 5m", " offset -1h", " @ 1609746000", " @ start()", " @ end() offset 1m"])
VECTORS = st.recursive(
    st.builds(lambda selector, timed: selector + timed, SELECTORS, TIMED),
    lambda inner: st.one_of(
        st.builds(lambda selector, window: f"rate({selector}[{window}])", SELECTORS, DURATIONS),
        st.builds(lambda node, window: f"max_over_time(({node})[{window}:1m])", inner, DURATIONS),
        st.builds(lambda node: f"-{node}", inner),
        st.builds(lambda node: f"({node})", inner),
        st.builds(
            lambda operator, grouping, node: f"{operator} {grouping} ({node})",
            st.sampled_from(["sum", "max", "count", "stddev"]),
            st.sampled_from(["", "by (plan)", "without (le, plan)", "by ()"]),
            inner,
        ),
        st.builds(lambda number, node: f"quantile({number}, {node})", st.floats(0, 1), inner),
        st.builds(lambda text, node: f"count_values({quoted('v' + text)}, {node})", TEXTS, inner),
        st.builds(
            lambda left, operator, right: f"{left} {operator} {right}",
            inner,
            st.sampled_from(["+", "-", "*", "/", "%", "^", "==", "> bool", "and", "or", "unless on (plan)",
                             "* on (plan) group_left (le)", "/ ignoring (le) group_right ()", "atan2"]),
            inner,
        ),
        st.builds(lambda node, number: f"{node} * {number!r}", inner, st.floats(allow_nan=False)),
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=300)
@example("up{} * -0.0")
@given(VECTORS)
def test_whatever_the_expression_its_meaning_stays_and_its_selectors_are_bound(expression: str) -> None:
    original = _described(parser.parse(expression))
    try:
        restricted = restrict(expression, SCOPE)
    except Malformed as refusal:
        pytest.fail(f"{expression}: {refusal.message}")
    tree = parser.parse(restricted)
    assert _described(tree, added=2) == original
    selectors: list[parser.VectorSelector] = []
    parser.walk(tree, lambda node: _collect(node, selectors))
    assert selectors
    for selector in selectors:
        enforced = [(matcher.name, matcher.value) for matcher in selector.matchers.matchers[-2:]]
        assert enforced == [("project_id", "project-1"), ("tenant_id", "tenant-1")]
        assert all(matcher.op == parser.MatchOp.Equal for matcher in selector.matchers.matchers[-2:])
        assert not selector.matchers.or_matchers


def _collect(node: parser.Expr, selectors: list[parser.VectorSelector]) -> bool:
    if isinstance(node, parser.MatrixSelector):
        selectors.append(node.vector_selector)
    elif isinstance(node, parser.VectorSelector):
        selectors.append(node)
    return True


def _described(tree: parser.Expr, added: int = 0) -> str:
    """The parser's own description of a tree, without the last `added` matchers of each selector."""
    lines = repr(tree).splitlines()
    description: list[str] = []
    for line in lines:
        if added and line.strip() == "or_matchers: []," and description:
            description = _without_matchers(description, added)
        description.append(line.strip())
    return "\n".join(description).replace("matchers: [\n],", "matchers: [],")


def _without_matchers(description: list[str], count: int) -> list[str]:
    closing = description.pop()
    assert closing == "],"
    for _ in range(count):
        while description[-1] != "Matcher {":
            description.pop()
        description.pop()
    return [*description, closing]
