{{/*
What a process is told, as a map of variables. The chart's own come from the topology, the rest from values; a
component's `settings` come last. Takes root, name, spec, facts (its row of the topology) and read (its secrets).
*/}}
{{- define "pulsegate.environment" -}}
{{- $ports := fromYaml (include "pulsegate.ports" .root) }}
{{- $told := dict
    "PULSEGATE_HOST" "0.0.0.0"
    "PULSEGATE_OPS_PORT" $ports.operations
    "PULSEGATE_LOG_LEVEL" .root.Values.logLevel
    "PULSEGATE_DRAIN_SECONDS" .spec.shutdown.drainSeconds }}
{{- with .root.Values.otlpEndpoint }}
{{- $_ := set $told "PULSEGATE_OTLP_ENDPOINT" . }}
{{- $_ := set $told "PULSEGATE_TRACES_SAMPLER" $.root.Values.traceSampling.sampler }}
{{- $_ := set $told "PULSEGATE_TRACES_SAMPLER_ARG" $.root.Values.traceSampling.ratio }}
{{- end }}
{{- with .root.Values.profilesUrl }}{{ $_ := set $told "PULSEGATE_PROFILES_URL" . }}{{ end }}
{{- if has "grpc" .facts.ports }}{{ $_ := set $told "PULSEGATE_GRPC_PORT" $ports.grpc }}{{ end }}
{{- if has "public" .facts.ports }}{{ $_ := set $told "PULSEGATE_PORT" $ports.public }}{{ end }}
{{- $variables := fromYaml (include "pulsegate.addressVariables" .) }}
{{- range $callee := .facts.calls }}
{{- $host := include "pulsegate.serviceHost" (dict "root" $.root "name" $callee) }}
{{- $_ := set $told (index $variables $callee) (printf "%s:%v" $host $ports.grpc) }}
{{- end }}
{{- if include "pulsegate.mtlsMounted" . }}
{{- $_ := set $told "PULSEGATE_MTLS_CERTIFICATE_PATH" "/run/mtls/pulsegate/tls.crt" }}
{{- $_ := set $told "PULSEGATE_MTLS_KEY_PATH" "/run/mtls/pulsegate/tls.key" }}
{{- $own := printf "/run/mtls/pulsegate/%s" .root.Values.mtls.authorityKey }}
{{- $_ := set $told "PULSEGATE_MTLS_CA_PATH" (ternary $own "/run/mtls/authorities/ca.crt" (empty .root.Values.mtls.authorities)) }}
{{- $_ := set $told "PULSEGATE_MTLS_DOMAIN" (include "pulsegate.mtlsDomain" .root) }}
{{- end }}
{{- $told = merge $told (fromYaml (include "pulsegate.secretVariables" .)) (fromYaml (include "pulsegate.authoritiesVariables" .)) }}
{{- range $variable, $value := fromYaml (include (printf "pulsegate.settings.%s" .name) .) }}
{{- $_ := set $told $variable $value }}
{{- end }}
{{- range $variable, $value := .spec.settings }}{{ $_ := set $told $variable $value }}{{ end }}
{{- range $variable, $value := $told }}
{{ $variable }}: {{ include "pulsegate.text" $value | quote }}
{{- end }}
{{- end }}

{{- define "pulsegate.remoteWriteUrl" -}}
{{- if .Values.evaluation.enabled -}}
http://{{ include "pulsegate.evaluationHost" (dict "root" . "name" "prometheus") }}:9090/api/v1/write
{{- else -}}
{{ .Values.sinks.remoteWriteUrl }}
{{- end -}}
{{- end }}

{{- define "pulsegate.prometheusUrl" -}}
{{- if .Values.evaluation.enabled -}}
http://{{ include "pulsegate.evaluationHost" (dict "root" . "name" "prometheus") }}:9090
{{- else -}}
{{ .Values.prometheusUrl }}
{{- end -}}
{{- end }}

{{/* What receivers and aggregators must agree on. */}}
{{- define "pulsegate.logSettings" -}}
PULSEGATE_LOG_STREAM: {{ .Values.log.stream }}
PULSEGATE_LOG_LANES: {{ .Values.log.lanes }}
PULSEGATE_LOG_REPLICAS: {{ .Values.log.replicas }}
PULSEGATE_LOG_MAX_BYTES: {{ .Values.log.maxBytes | int64 }}
{{- end }}
