"""The OpenAPI 3.1 document of the public API, made of the tables of routes and the structs that they name."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

from services.gateway import errors
from services.gateway.http_api.bodies import Asking, Taking
from services.gateway.http_api.shapes import Told
from services.gateway.routes import IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED, PARAMETER, Audience, Header, Media, Route

Json = dict[str, Any]
Shape = type[msgspec.Struct]

_JSON = "application/json"
_WORD = re.compile(r"[A-Za-z0-9]+")
_LIMITED = frozenset(Audience) - {Audience.OPEN}

#: Statuses of errors that each audience brings; none is limited where nothing is counted.
_ERRORS_BY_AUDIENCE: Mapping[Audience, Sequence[int]] = {
    Audience.OPEN: (403, 500),
    Audience.ANYBODY: (403, 429, 500, 503, 504),
    Audience.SIGN_IN: (403, 429, 500, 503, 504),
    Audience.READ: (400, 401, 403, 404, 429, 500, 503, 504),
    Audience.WRITE: (400, 401, 403, 404, 429, 500, 503, 504),
    Audience.PROOF: (400, 401, 403, 404, 429, 500, 503, 504),
    Audience.EXPENSIVE: (400, 401, 403, 404, 429, 500, 503, 504),
    Audience.QUERY: (400, 401, 403, 404, 429, 500, 503, 504),
    Audience.INGESTION: (400, 401, 403, 404, 429, 500, 503, 504),
    Audience.PROVISIONING: (400, 401, 403, 404, 429, 500, 503, 504),
}
#: What an audience's bodies and parameters are never refused with: SCIM knows 400 for all that is wrong with them.
_NO_ERRORS_BY_AUDIENCE: Mapping[Audience, frozenset[int]] = {Audience.PROVISIONING: frozenset({422})}
_ERRORS_OF_BODIES = (400, 413, 415, 422)
_ERRORS_OF_PARAMETERS = (422,)
_ERRORS_OF_KEYS = (409, 413, 422)

_PERSON_OR_KEY: list[dict[str, list[str]]] = [{"accessToken": []}, {"secretKey": []}, {"apiKey": []}]
_KEY: list[dict[str, list[str]]] = [{"apiKey": []}, {"secretKey": []}, {"keyInAddress": []}, {"keyAsPassword": []}]
_SECURITY: Mapping[Audience, list[dict[str, list[str]]]] = {
    Audience.READ: _PERSON_OR_KEY,
    Audience.WRITE: _PERSON_OR_KEY,
    Audience.PROOF: _PERSON_OR_KEY,
    Audience.EXPENSIVE: _PERSON_OR_KEY,
    Audience.QUERY: _PERSON_OR_KEY,
    Audience.INGESTION: _KEY,
    Audience.PROVISIONING: [{"provisioningToken": []}],
}
_SECURITY_SCHEMES: Mapping[str, Json] = {
    "accessToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A person's access token, from signing in.",
    },
    "secretKey": {"type": "http", "scheme": "bearer", "description": "A secret API key, `sk_…`."},
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key, publishable (`pk_…`) or secret (`sk_…`).",
    },
    "keyInAddress": {
        "type": "apiKey",
        "in": "query",
        "name": "key",
        "description": "A publishable key, from a beacon, which sends no headers.",
    },
    "keyAsPassword": {
        "type": "http",
        "scheme": "basic",
        "description": "An API key as the password, for clients that know no other way; the name is not looked at.",
    },
    "provisioningToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "An identity provider's provisioning token, `pt_…`.",
    },
}

_TEXT: Json = {"type": "string"}
_ANSWER_HEADERS: Mapping[str, tuple[str, Json]] = {
    "X-Correlation-Id": ("The request's own where it was well-formed, else new.", _TEXT),
    "RateLimit": ("What is left of each limit, and seconds until it is whole (draft-ietf-httpapi-ratelimit).", _TEXT),
    "RateLimit-Policy": ("The limits that this call counts towards.", _TEXT),
    "Retry-After": ("Seconds after which trying again makes sense.", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("The scheme.", _TEXT),
    "ETag": ("The version of what was answered.", _TEXT),
    "Location": ("Where the new thing is.", {"type": "string", "format": "uri-reference"}),
    "Link": ("Where the same bytes are for ever.", _TEXT),
    "Content-Disposition": ("A sensible file name.", _TEXT),
    "X-Content-Integrity": ("The hash for a script tag (subresource integrity).", _TEXT),
    "Deprecation": ("Since when this is deprecated (RFC 9745): @ and Unix seconds.", _TEXT),
    "Sunset": ("When this may stop to answer (RFC 8594).", _TEXT),
    IDEMPOTENT_REPLAYED: ("true where a request with the same key was answered so before.", _TEXT),
}

_IDEMPOTENCY_KEY = Header(
    IDEMPOTENCY_KEY,
    "A name for this request, such as a UUID: sent again under it within a day, it is carried out once.",
)

_IF_NONE_MATCH = Header("If-None-Match", "The ETag of the answer that the client has.")

_DESCRIPTION = """\
Metrics for everything that Prometheus cannot scrape.

Unknown members of a body are refused, but for ingestion, where they are ignored. Every error has the same shape; its
`code` is stable, its message is not. Within a version members are only added. What goes away is marked deprecated,
answers with `Deprecation` and `Sunset` headers, and stays until then, at least six months; what would break clients is
a new version, beside the old one."""


class Resource(Protocol):
    """A part of the API."""

    @property
    def title(self) -> str:
        """Under which its readers find it."""
        ...

    def routes(self) -> Sequence[Route]: ...


class ErrorBody(Told, omit_defaults=True):
    code: str
    message: str
    timestamp: str
    correlation_id: str
    details: dict[str, Any] | None = None


class Error(Told):
    """Every error, but for those of Prometheus' API, of OTLP and of SCIM."""

    error: ErrorBody


class PrometheusError(Told):
    """An error as Prometheus has it."""

    status: str
    error_type: str
    error: str


class ScimError(Told, omit_defaults=True):
    """An error as SCIM has it (RFC 7644, 3.12). The detail begins with the code of this API."""

    schemas: list[str]
    #: Of HTTP.
    status: str
    detail: str
    scim_type: str = ""


class RpcStatus(Told, omit_defaults=True):
    """An error as OTLP has it: `google.rpc.Status`. The message begins with the code of this API."""

    code: int = 0
    message: str = ""


def document(resources: Sequence[Resource], *, server: str) -> Json:
    """The whole document. Raises ValueError where two routes have the same name."""
    described = [(resource.title, route) for resource in resources for route in resource.routes()]
    references, schemas = _schemas(sorted({*_shapes(route for _, route in described), *_ERRORS}, key=_name))
    paths: dict[str, Json] = {}
    names: set[str] = set()
    for title, route in described:
        operation = _operation(title, route, references)
        if operation["operationId"] in names:
            raise ValueError(f"Two routes are named {operation['operationId']}")
        names.add(operation["operationId"])
        paths.setdefault(route.pattern, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pulsegate", "version": "1", "description": _DESCRIPTION, "license": _LICENSE},
        "servers": [{"url": server}],
        "tags": [{"name": title} for title in dict.fromkeys(title for title, _ in described)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": dict(_SECURITY_SCHEMES),
            "headers": {name: _header(says, schema) for name, (says, schema) in _ANSWER_HEADERS.items()},
        },
    }


_LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
_ERRORS: Sequence[Shape] = (Error, PrometheusError, RpcStatus, ScimError)


def _name(shape: Shape) -> str:
    return shape.__name__


def _schemas(shapes: Sequence[Shape]) -> tuple[Mapping[Shape, Json], Json]:
    """What refers to each struct, and the schemas by name."""
    references, schemas = msgspec.json.schema_components(shapes, ref_template="#/components/schemas/{name}")
    return dict(zip(shapes, references, strict=True)), schemas


def _shapes(routes: Iterator[Route]) -> Iterator[Shape]:
    """The structs of all bodies."""
    for route in routes:
        bodies = [_body_of(route), *_answers_of(route).values()]
        for body in bodies:
            shape = body.shape if isinstance(body, Media) else body
            if shape is not None:
                yield shape


def _body_of(route: Route) -> Shape | Media | None:
    return route.handler.shape if isinstance(route.handler, Taking) else route.operation.body


def _query_of(route: Route) -> Shape | None:
    return route.handler.shape if isinstance(route.handler, Asking) else route.operation.query


def _answers_of(route: Route) -> Mapping[int, Shape | Media | None]:
    """With what the stages before its handler answer."""
    return {**route.operation.answers, **({304: None} if route.is_revalidated else {})}


def _headers_taken(route: Route) -> Sequence[Header]:
    """With what the stages before its handler read."""
    return [
        *route.operation.headers,
        *([_IDEMPOTENCY_KEY] if route.takes_idempotency_key else []),
        *([_IF_NONE_MATCH] if route.is_revalidated else []),
    ]


def _operation(title: str, route: Route, references: Mapping[Shape, Json]) -> Json:
    told, body = route.operation, _body_of(route)
    made: Json = {"operationId": _camel(told.summary), "summary": told.summary, "tags": [title]}
    if description := _description(route):
        made["description"] = description
    if parameters := [
        *_path_parameters(route),
        *_query_parameters(route),
        *map(_header_parameter, _headers_taken(route)),
    ]:
        made["parameters"] = parameters
    if body is not None:
        made["requestBody"] = {"required": True, "content": _content(body, references)}
    made["responses"] = {
        **{str(status): _answer(status, route, references) for status in _answers_of(route)},
        **{str(status): _error(status, route, references) for status in statuses_of_errors(route)},
    }
    made["security"] = _SECURITY.get(route.audience, [])
    if route.deprecation is not None:
        made["deprecated"] = True
    return made


def _description(route: Route) -> str:
    """With what its users must know where it goes away."""
    told, deprecation = route.operation.description, route.deprecation
    if deprecation is None:
        return told
    sunset = format_datetime(deprecation.sunset.astimezone(UTC), usegmt=True)
    return f"{told} Deprecated; it may stop to answer on {sunset}. See {deprecation.advice}".strip()


def _camel(summary: str) -> str:
    words = [str(word) for word in _WORD.findall(summary.replace("'", ""))]
    return words[0].lower() + "".join(word[:1].upper() + word[1:] for word in words[1:])


def statuses_of_errors(route: Route) -> Sequence[int]:
    """The statuses of errors that a route may answer, beside those that are answers of their own."""
    body = _ERRORS_OF_BODIES if _body_of(route) is not None else ()
    parameters = _ERRORS_OF_PARAMETERS if _query_of(route) is not None else ()
    keys = _ERRORS_OF_KEYS if route.takes_idempotency_key else ()
    found = {*_ERRORS_BY_AUDIENCE[route.audience], *body, *parameters, *keys, *route.operation.errors}
    return sorted(found - set(_answers_of(route)) - _NO_ERRORS_BY_AUDIENCE.get(route.audience, frozenset()))


def _path_parameters(route: Route) -> Iterator[Json]:
    for name, pattern in PARAMETER.findall(route.path):
        schema = {"type": "string", "format": "uuid"} if name.endswith("Id") else {"type": "string", "minLength": 1}
        if pattern:
            schema["pattern"] = f"^{pattern}$"
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(route: Route) -> Iterator[Json]:
    shape = _query_of(route)
    if shape is not None:
        schema = msgspec.json.schema(shape)["$defs"][_name(shape)]
        for name, member in schema["properties"].items():
            yield {
                "name": name,
                "in": "query",
                "required": name in schema["required"],
                "schema": _without_blank(member),
            }
    if route.audience is Audience.QUERY:
        yield _project_id("People name their project; a key has its own.")
    if route.audience is Audience.INGESTION:
        yield _project_id("May be named; it is the key's own.")


def _project_id(says: str) -> Json:
    schema = {"type": "string", "format": "uuid"}
    return {"name": "projectId", "in": "query", "required": False, "description": says, "schema": schema}


def _without_blank(schema: Json) -> Json:
    """What a parameter is where it is there: an empty default is how a struct says that it may be left out."""
    there = next((one for one in schema.get("anyOf", ()) if one != {"type": "null"}), schema)
    return {name: value for name, value in there.items() if name != "default" or value not in ("", [], None)}


def _header_parameter(header: Header) -> Json:
    return {
        "name": header.name,
        "in": "header",
        "required": header.required,
        "description": header.says,
        "schema": _TEXT,
    }


def _header(says: str, schema: Json) -> Json:
    return {"description": says, "schema": schema}


def _content(body: Shape | Media, references: Mapping[Shape, Json]) -> Json:
    if not isinstance(body, Media):
        return {_JSON: {"schema": references[body]}}
    shaped = {media_type: {"schema": references[body.shape]} if body.shape else {} for media_type in body.types}
    return {**shaped, **{media_type: {} for media_type in body.others}}


def _headers_of(status: int, route: Route) -> Json:
    names = ["X-Correlation-Id"]
    # What is refused before its limit is known, says nothing about limits.
    if route.audience in _LIMITED and (status < HTTPStatus.BAD_REQUEST or status == HTTPStatus.TOO_MANY_REQUESTS):
        names += ["RateLimit", "RateLimit-Policy"]
    if route.deprecation is not None:
        names += ["Deprecation", "Sunset"]
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE) and status not in _answers_of(route):
        names.append("Retry-After")
    if status == HTTPStatus.UNAUTHORIZED:
        names.append("WWW-Authenticate")
    if status < HTTPStatus.BAD_REQUEST:
        names += dict.fromkeys((*route.operation.answer_headers, *(["ETag"] if route.is_revalidated else [])))
    if route.takes_idempotency_key and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        names.append(IDEMPOTENT_REPLAYED)
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _answer(status: int, route: Route, references: Mapping[Shape, Json]) -> Json:
    body = _answers_of(route)[status]
    made: Json = {"description": HTTPStatus(status).phrase, "headers": _headers_of(status, route)}
    if body is not None:
        made["content"] = _content(body, references)
    return made


def _error(status: int, route: Route, references: Mapping[Shape, Json]) -> Json:
    codes = errors.CODES[status]
    if route.path == errors.OTLP_PATH:
        # A request that is not in a format of OTLP is answered as everywhere else.
        either = {"anyOf": [references[RpcStatus], references[Error]]}
        content = {errors.OTLP_PROTOBUF: {}, _JSON: {"schema": either}}
    elif route.path.startswith(errors.BELOW_PROMETHEUS):
        content = _content(PrometheusError, references)
    elif route.path.startswith(errors.BELOW_SCIM):
        content = _content(Media((errors.SCIM,), ScimError), references)
    else:
        narrowed = {"properties": {"error": {"properties": {"code": {"enum": list(codes)}}}}}
        content = {_JSON: {"schema": {"allOf": [references[Error], narrowed]}}}
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
        "headers": _headers_of(status, route),
        "content": content,
    }
