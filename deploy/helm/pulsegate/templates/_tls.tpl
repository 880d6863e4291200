{{/* The Secret with the gateway's own certificate; empty where the gateway speaks plain HTTP. */}}
{{- define "pulsegate.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{ .Values.tls.existingSecret | default (printf "%s-gateway-tls" (include "pulsegate.fullname" .)) }}
{{- else -}}
{{ .Values.tls.existingSecret }}
{{- end -}}
{{- end }}

{{- define "pulsegate.tlsMounted" -}}
{{- if and (eq .name "gateway") (include "pulsegate.tlsSecret" .root) }}yes{{ end -}}
{{- end }}
