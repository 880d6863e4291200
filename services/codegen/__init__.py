"""Code generation: typed clients made from a project's metric definitions.

Owns the schema `codegen`: what was generated, by hash; `cleaning` deletes what nobody asks for any more. Called by the
gateway alone. A compiler pipeline::

    grpc_api.GenerateClient → domain.Options.of → operations.ClientGeneration.generate
        → a turn to look up (chassis.timely_turns) → digests (fetch; what is known by its digest ends here)
        → a turn to render, of each tenant one → clients.ConfigClient (fetch) → domain.Definitions.of (validate)
        → outputters (one table of languages, one module and one template folder each) → storage (publish)

A generated client is the runtime of its language (`sdk/`; the modules of Python's are joined to one file), followed by
a class with one method a metric. The same definitions and options give the same bytes.
"""
