{{/*
Who is who: everything that the chart knows about a service which its values do not say. Environment, mounted secrets,
Services and network paths are made of this table, so that a path which is opened here is the one that is used.

  module    what `python -m` runs
  arguments after it
  schema    the Postgres schema that its migrations keep
  ports     what it listens on besides operations, which all have
  calls     services that it calls over gRPC
  servers   backing servers that it connects to, whatever values say
  secrets   variable -> item of `secrets.items`; mounted as files, named by the variable with _FILE
  client    whether it stands outside: it has no service token and reaches the gateway's public port alone, and there is one
            of it, of whatever track, which keeps a file
*/}}
{{- define "pulsegate.topology" -}}
auth:
  module: services.auth
  schema: auth
  ports: [grpc]
  calls: []
  servers: [postgres]
  secrets:
    PULSEGATE_AUTH_MASTER_KEY: authMasterKey
    PULSEGATE_POSTGRES_DSN: authDsn
config:
  module: services.config
  schema: config
  ports: [grpc]
  calls: [auth]
  servers: [postgres]
  secrets:
    PULSEGATE_POSTGRES_DSN: configDsn
codegen:
  module: services.codegen
  schema: codegen
  ports: [grpc]
  calls: [auth, config]
  servers: [postgres]
  secrets:
    PULSEGATE_POSTGRES_DSN: codegenDsn
receiver:
  module: services.ingest
  arguments: [receiver]
  schema: ingest
  ports: [grpc]
  calls: [auth, config]
  servers: [nats, postgres]
  secrets:
    PULSEGATE_NATS_URL: natsUrl
    PULSEGATE_POSTGRES_DSN: ingestDsn
aggregator:
  module: services.ingest
  arguments: [aggregator]
  schema: ingest
  ports: []
  calls: []
  servers: [nats, postgres, sinks]
  secrets:
    PULSEGATE_NATS_URL: natsUrl
    PULSEGATE_POSTGRES_DSN: ingestDsn
gateway:
  module: services.gateway
  ports: [public]
  calls: [auth, config, codegen, receiver]
  servers: [valkey]
  secrets:
    PULSEGATE_GATEWAY_SEALING_KEY: gatewaySealingKey
    PULSEGATE_REDIS_URL: valkeyUrl
canary:
  module: services.canary
  client: true
  ports: []
  calls: []
  servers: []
  secrets:
    PULSEGATE_CANARY_KEY: canaryKey
{{- end }}

{{/* The same of what runs: the canary is there where it is asked for. */}}
{{- define "pulsegate.running" -}}
{{- $running := fromYaml (include "pulsegate.topology" .) }}
{{- toYaml (ternary $running (omit $running "canary") .Values.canary.enabled) }}
{{- end }}

{{/* The variable by which callers are told a service's address. */}}
{{- define "pulsegate.addressVariables" -}}
auth: PULSEGATE_AUTH_ADDRESS
config: PULSEGATE_CONFIG_ADDRESS
codegen: PULSEGATE_CODEGEN_ADDRESS
receiver: PULSEGATE_INGEST_ADDRESS
{{- end }}

{{/* Container ports. Each pod has an address of its own, so they are the same everywhere. */}}
{{- define "pulsegate.ports" -}}
public: 8080
operations: 8081
grpc: 9000
{{- end }}
