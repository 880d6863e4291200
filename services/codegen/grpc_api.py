"""`CodegenService` as the gateway calls it."""

from typing import Any

import grpc

from chassis import principals
from chassis.errors import Invalid
from contracts.pulsegate.codegen.v1 import codegen_pb2, codegen_pb2_grpc
from services.codegen.domain import Language, Options, Packaging
from services.codegen.operations import ClientGeneration

Call = grpc.aio.ServicerContext[Any, Any]

_LANGUAGES = {
    codegen_pb2.LANGUAGE_JAVASCRIPT: Language.JAVASCRIPT,
    codegen_pb2.LANGUAGE_PYTHON: Language.PYTHON,
}
_PACKAGINGS = {
    codegen_pb2.PACKAGING_UNSPECIFIED: Packaging.MODULE,
    codegen_pb2.PACKAGING_MODULE: Packaging.MODULE,
    codegen_pb2.PACKAGING_SCRIPT: Packaging.SCRIPT,
}


class CodegenServicer(codegen_pb2_grpc.CodegenServiceServicer):
    """Protobuf in, protobuf out."""

    def __init__(self, generation: ClientGeneration) -> None:
        self._generation = generation

    async def GenerateClient(  # noqa: N802 - the contract's name
        self, request: codegen_pb2.GenerateClientRequest, _call: Call
    ) -> codegen_pb2.GenerateClientResponse:
        artifact = await self._generation.generate(principals.current_of_project(), _options(request))
        return codegen_pb2.GenerateClientResponse(
            content=artifact.content,
            content_type=artifact.content_type,
            file_name=artifact.file_name,
            sha256=artifact.sha256,
        )

    async def GetArtifact(  # noqa: N802 - the contract's name
        self, request: codegen_pb2.GetArtifactRequest, _call: Call
    ) -> codegen_pb2.GetArtifactResponse:
        artifact = await self._generation.artifact(principals.current_of_project(), request.sha256)
        return codegen_pb2.GetArtifactResponse(
            content=artifact.content, content_type=artifact.content_type, file_name=artifact.file_name
        )


def _options(request: codegen_pb2.GenerateClientRequest) -> Options:
    language, packaging = _LANGUAGES.get(request.language), _PACKAGINGS.get(request.packaging)
    if language is None or packaging is None:
        member = "packaging" if language else "language"
        raise Invalid.fields({member: f"must be one of {', '.join(Language if member == 'language' else Packaging)}"})
    return Options.of(
        language=language,
        endpoint=request.endpoint,
        key=request.publishable_key,
        minify=request.minify,
        packaging=packaging,
    )
