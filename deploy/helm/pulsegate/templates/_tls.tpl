{{/* The Secret with the gateway's own certificate; empty where the gateway speaks plain HTTP. */}}
{{- define "pulsegate.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{ .Values.tls.existingSecret | default (printf "%s-gateway-tls" (include "pulsegate.fullname" .)) }}
{{- else -}}
{{ .Values.tls.existingSecret }}
{{- end -}}
{{- end }}

{{/* The Secret with a component's certificate for other services, its key and the authority's. Takes root and name. */}}
{{- define "pulsegate.mtlsSecret" -}}
{{ include "pulsegate.fullname" .root }}-{{ .name }}-mtls
{{- end }}

{{/* Certificates are for those who call or are called. Takes root and facts. */}}
{{- define "pulsegate.mtlsMounted" -}}
{{- if and .root.Values.mtls.enabled (or .facts.calls (has "grpc" .facts.ports)) }}yes{{ end -}}
{{- end }}

{{/* The names of an installation's services end with it. */}}
{{- define "pulsegate.mtlsDomain" -}}
{{ .Values.mtls.domain | default (printf "%s.%s.internal" (include "pulsegate.fullname" .) .Release.Namespace) }}
{{- end }}

{{/* Takes what `pulsegate.component` puts together. cert-manager issues a new key each time; pods need no restart. */}}
{{- define "pulsegate.mtlsCertificate" }}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ include "pulsegate.mtlsSecret" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "pulsegate.labels" . | nindent 4 }}
spec:
  secretName: {{ include "pulsegate.mtlsSecret" . }}
  issuerRef: {{- toYaml .root.Values.mtls.issuerRef | nindent 4 }}
  dnsNames: [{{ printf "%s.%s" .name (include "pulsegate.mtlsDomain" .root) | quote }}]
  usages: [server auth, client auth]
  duration: {{ .root.Values.mtls.duration }}
  renewBefore: {{ .root.Values.mtls.renewBefore }}
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
{{- end }}

{{- define "pulsegate.tlsMounted" -}}
{{- if and (eq .name "gateway") (include "pulsegate.tlsSecret" .root) }}yes{{ end -}}
{{- end }}
