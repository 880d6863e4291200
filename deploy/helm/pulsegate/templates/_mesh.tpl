{{/*
Istio, with sidecars: who may reach a service is decided by the identity of the caller's account. Takes root, name and
facts. The same paths as in the network policy, from the same table.
*/}}
{{- define "pulsegate.mesh" }}
{{- $ports := fromYaml (include "pulsegate.ports" .root) }}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: {{ include "pulsegate.fullname" .root }}-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "pulsegate.labels" . | nindent 4 }}
spec:
  selector:
    matchLabels: {{- include "pulsegate.selectorLabels" . | nindent 6 }}
  mtls: {mode: STRICT}
  # Clients, what brings them here, and Prometheus may be outside of the mesh.
  portLevelMtls:
    {{- range $port := append (without .facts.ports "grpc") "operations" }}
    {{ index $ports $port }}: {mode: PERMISSIVE}
    {{- end }}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: {{ include "pulsegate.fullname" .root }}-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "pulsegate.labels" . | nindent 4 }}
spec:
  selector:
    matchLabels: {{- include "pulsegate.selectorLabels" . | nindent 6 }}
  action: ALLOW
  rules:
    {{- range $port := append (without .facts.ports "grpc") "operations" }}
    - to: [{operation: {ports: [{{ index $ports $port | quote }}]}}]
    {{- end }}
    {{- with include "pulsegate.callerIdentities" . }}
    - from: [{source: {principals: {{ . }}}}]
      to: [{operation: {ports: [{{ $ports.grpc | quote }}]}}]
    {{- end }}
{{- end }}

{{/* A sidecar is told to end when its pod is: it goes on for longer than the service, and not until SIGKILL. */}}
{{- define "pulsegate.sidecar" -}}
{{ dict "terminationDrainDuration" (printf "%ds" (add (include "pulsegate.endSeconds" .) 10)) | toJson }}
{{- end }}

{{/* The identities of those whose row of the topology says that they call this one; nothing where nobody does. */}}
{{- define "pulsegate.callerIdentities" -}}
{{- $callers := list }}
{{- range $caller, $facts := fromYaml (include "pulsegate.topology" .root) }}
{{- if has $.name $facts.calls }}
{{- $account := printf "%s-%s" (include "pulsegate.fullname" $.root) $caller }}
{{- $callers = append $callers (printf "%s/ns/%s/sa/%s" $.root.Values.istio.trustDomain $.root.Release.Namespace $account) }}
{{- end }}
{{- end }}
{{- if $callers }}{{ toJson $callers }}{{ end }}
{{- end }}
