"""Rules against requests of known attack shapes: what no client of Pulsegate sends, and scanners do.

None of them is what keeps an attack out: routes, schemas, parsers and row-level security do that. They end scans early,
and tell that there are some. So each rule names only what cannot be meant well. Bodies are not looked at, nor PromQL
(`promql.py` reads that), nor the values in a Pushgateway client's path: all these may say anything.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus

import re2
from aiohttp import web
from multidict import istr

from chassis import logs
from chassis.errors import Forbidden
from services.gateway import metrics

log = logs.get(__name__)


@dataclass(frozen=True)
class Rule:
    """One shape. `pattern` is a regular expression of RE2, so that no text takes long; case does not matter."""

    name: str
    pattern: str


#: Over the path as it was sent.
_PATH_RULES: Sequence[Rule] = (
    # Up and out of the folder, also encoded, and encoded twice.
    Rule("path_traversal", r"(?:[/\\]|%(?:25)?(?:2f|5c))(?:\.|%(?:25)?2e){2}(?:[/\\]|%(?:25)?(?:2f|5c)|$)"),
    # UTF-8 that is longer than it need be, which decoders once took for a dot or a slash.
    Rule("overlong_utf8", r"%c0%(?:ae|af|2e|2f)|%e0%80%(?:ae|af)|%u(?:002e|002f|2215|2216)"),
    Rule("null_byte", r"%(?:25)?00"),
    # Files that other software leaves where the web server finds them.
    Rule("secret_file", r"/\.(?:env|git|svn|hg|aws|ssh|docker|kube|npmrc|htaccess|htpasswd|DS_Store)(?:[./_-]|$)"),
    # Software that this is not.
    Rule(
        "other_software",
        r"^/(?:wp-(?:admin|content|includes|json|login)|xmlrpc|phpmyadmin|pma|myadmin|adminer|cgi-bin|vendor/phpunit"
        r"|actuator|server-status|_ignition|telescope|boaform|hnap1|solr|owa|autodiscover|struts|jmx-console"
        r"|manager/html|geoserver|\+CSCOE\+|_profiler)(?:[/.?;]|$)",
    ),
    Rule("script_file", r"\.(?:php\d?|phtml|aspx?|ashx|jspx?|cgi|cfm)(?:[/;]|$)"),
)

#: Over the decoded query of a management call, whose parameters are ids, numbers, names and moments.
_QUERY_RULES: Sequence[Rule] = (
    Rule(
        "sql_injection",
        r"\bunion\s+(?:all\s+)?select\b|['\")]\s*(?:or|and)\s+['\"(]?\w+['\"]?\s*(?:=|like\b|<|>)"
        r"|;\s*(?:drop|delete|insert|update|alter|create|truncate)\s+\w|\b(?:pg_sleep|sleep|benchmark)\s*\(\s*\d"
        r"|\binformation_schema\b|\bxp_cmdshell\b",
    ),
    Rule("script_injection", r"<\s*/?\s*(?:script|iframe|svg|img)\b|\bjavascript:|\bon(?:error|load|click)\s*="),
    Rule(
        "command_injection",
        r"[;|&`]\s*(?:cat|ls|id|wget|curl|nc|bash|sh|powershell)\s+[/\-\w]|\$\((?:cat|id|curl|wget)\b",
    ),
    Rule("file_inclusion", r"(?:\.\.[/\\]){2}|\b(?:file|php|gopher|expect|phar)://|/etc/passwd|\\windows\\"),
    Rule("null_byte", "\x00"),
)

#: Over headers that are stored or logged: a person's sessions name the User-Agent.
_HEADER_RULES: Sequence[Rule] = (
    Rule("expression_lookup", r"\$\{\s*(?:jndi|env|sys|lower|upper|::-|\w+:-)"),  # Log4Shell
    Rule("shell_function", r"^\s*\(\)\s*\{"),  # Shellshock
)
_HEADERS = (istr("User-Agent"), istr("Referer"))

#: What a web server answers for its own purposes, or a proxy alone.
_METHODS = frozenset({"TRACE", "TRACK", "CONNECT", "DEBUG"})

#: Anything may stand in these paths, and in these queries.
_FREE_PATHS = ("/metrics/job/", "/metrics/job@base64/")
_FREE_QUERIES = ("/prometheus/", *_FREE_PATHS)

_REMEMBERED = 4096
_LONGEST_REMEMBERED = 512
#: So much of a path and of a query is looked at, so that what is long costs no more than some microseconds.
_LOOKED_AT = 2048


def names() -> Sequence[str]:
    """Of all rules."""
    return tuple(dict.fromkeys(["method", *(rule.name for rule in (*_PATH_RULES, *_QUERY_RULES, *_HEADER_RULES))]))


class _Together:
    """All rules of one kind."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        options = re2.Options()
        options.case_sensitive = False
        text = "|".join(f"(?P<{rule.name}>{rule.pattern})" for rule in rules)
        self._compiled: Any = re2.compile(text, options)  # type: ignore[no-untyped-call]

    def broken_by(self, text: str) -> str | None:
        """The rule that a text is against. It may hold bytes that are no UTF-8, as aiohttp decodes them."""
        found = self._compiled.search(text.encode("utf-8", "replace"))
        return found.lastgroup if found else None


_IN_PATH, _IN_QUERY, _IN_HEADER = _Together(_PATH_RULES), _Together(_QUERY_RULES), _Together(_HEADER_RULES)


def rule_of_target(target: str) -> str | None:
    """The rule that a request's target (path and query, as sent) is against."""
    if len(target) > _LONGEST_REMEMBERED:
        return _judged_target(target)
    return _known_target(target)


def _judged_target(target: str) -> str | None:
    path, _, query = target.partition("?")
    found = None if path.startswith(_FREE_PATHS) else _IN_PATH.broken_by(path[:_LOOKED_AT])
    if found is None and query and not path.startswith(_FREE_QUERIES):
        found = _IN_QUERY.broken_by(unquote_plus(query[:_LOOKED_AT]))
    return found


#: Clients ask for the same again and again: a look-up, instead of a search, for them.
_known_target = lru_cache(_REMEMBERED)(_judged_target)
_known_header = lru_cache(_REMEMBERED)(_IN_HEADER.broken_by)


def rule_of(request: web.Request) -> str | None:
    """The first rule that a request is against."""
    if request.method in _METHODS:
        return "method"
    if found := rule_of_target(request.raw_path):
        return found
    for header in _HEADERS:
        value = request.headers.get(header)
        if value and (found := _known_header(value[:_LONGEST_REMEMBERED])):
            return found
    return None


class RequestRules:
    """Counts and logs what is against a rule; refuses it where the mode is `enforce`."""

    def __init__(self, mode: str) -> None:
        """`mode`: off, detect or enforce."""
        self._mode = mode

    def check(self, request: web.Request) -> None:
        """Raises Forbidden (REQUEST_REFUSED)."""
        if self._mode == "off" or (rule := rule_of(request)) is None:
            return
        refused = self._mode == "enforce"
        metrics.RULE_HITS.labels(rule, "refused" if refused else "detected").inc()
        # No address: it is a person's, and behind a proxy the proxy's. The correlation id finds it in the proxy's log.
        log.warning("request of an attack's shape", rule=rule, refused=refused)
        if refused:
            raise Forbidden(
                "This request looks like an attack and was refused. If it was meant well, tell whoever runs this"
                " installation the rule and the correlation id.",
                code="REQUEST_REFUSED",
                details={"rule": rule},
            )
