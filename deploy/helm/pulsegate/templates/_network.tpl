{{/*
The tracks that serve, as a list. One of several: the others stand by, and the Services select its label. All of them:
the Services select without a track, so they share the traffic by their replicas.
*/}}
{{- define "pulsegate.servingTracks" -}}
{{- $serving := list }}
{{- range $track, $values := .Values.tracks }}
{{- if ne (toString $values.serving) "false" }}{{ $serving = append $serving $track }}{{ end }}
{{- end }}
{{- if empty $serving }}{{ fail "tracks: one of them must serve" }}{{ end }}
{{- if and (gt (len $serving) 1) (ne (len $serving) (len .Values.tracks)) }}
{{- fail "tracks: where several serve, none may stand by: let all of them serve, or one" }}
{{- end }}
{{- if and (eq (len $serving) 1) (gt (len .Values.tracks) 1) (index .Values.tracks (first $serving)).components }}
{{- fail "tracks: the only one that serves must have all components" }}
{{- end }}
{{- toYaml $serving }}
{{- end }}

{{/* Takes root, name, facts and, for a Service of one track alone, track. */}}
{{- define "pulsegate.serviceSelector" -}}
{{ include "pulsegate.selectorLabels" . }}
{{- $serving := fromYamlArray (include "pulsegate.servingTracks" .root) }}
{{- if .track }}
{{ include "pulsegate.trackLabel" . }}
{{- else if and (not .facts.client) (eq (len $serving) 1) (gt (len .root.Values.tracks) 1) }}
{{ include "pulsegate.trackLabel" (dict "track" (first $serving)) }}
{{- end }}
{{- end }}

{{/* The ones of a single track are for the inside: the Service that clients reach turns to it, or a route does. */}}
{{- define "pulsegate.services" }}
{{- include "pulsegate.service" . }}
{{- if and (has "public" .facts.ports) (gt (len .root.Values.tracks) 1) }}
{{- range $track, $values := .root.Values.tracks }}
{{- if or (empty $values.components) (has $.name $values.components) }}
{{- include "pulsegate.service" (merge (dict "track" $track "suffix" (printf "-track-%s" $track)) $) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Of the gateway's Services: what an https:// address names without a port, where clients reach them by one. */}}
{{- define "pulsegate.publicPort" -}}
{{- $https := and (ne .Values.service.type "ClusterIP") (not (empty (include "pulsegate.tlsSecret" .))) -}}
{{- .Values.service.port | default (ternary 443 (fromYaml (include "pulsegate.ports" .)).public $https) -}}
{{- end }}

{{/* Headless for gRPC: callers see every pod and spread their calls over them. */}}
{{- define "pulsegate.service" }}
{{- $ports := fromYaml (include "pulsegate.ports" .root) }}
{{- $public := has "public" .facts.ports }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "pulsegate.fullname" .root }}-{{ .name }}{{ .suffix }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "pulsegate.labels" . | nindent 4 }}
  {{- if and $public (not .track) }}
  {{- with .root.Values.service.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
spec:
  {{- if $public }}
  {{- $reached := .root.Values.service }}
  type: {{ ternary "ClusterIP" $reached.type (not (empty .track)) }}
  {{- if and (ne $reached.type "ClusterIP") (not .track) }}
  externalTrafficPolicy: {{ $reached.externalTrafficPolicy | default (ternary "Local" "Cluster" (eq $reached.type "LoadBalancer")) }}
  {{- end }}
  {{- else }}
  clusterIP: None
  {{- end }}
  selector: {{- include "pulsegate.serviceSelector" . | nindent 4 }}
  ports:
    {{- range $port := .facts.ports }}
    - name: {{ $port }}
      port: {{ ternary (include "pulsegate.publicPort" $.root) (index $ports $port) $public }}
      targetPort: {{ $port }}
      protocol: TCP
      {{- $encrypted := ternary (include "pulsegate.tlsSecret" $.root) (ternary "yes" "" $.root.Values.mtls.enabled) $public }}
      appProtocol: {{ ternary "https" (ternary "http" "kubernetes.io/h2c" $public) (not (empty $encrypted)) }}
    {{- end }}
    {{- if not $public }}
    - {name: operations, port: {{ $ports.operations }}, targetPort: operations, protocol: TCP, appProtocol: http}
    {{- end }}
{{- end }}

{{/* What is not named here is refused by the policy that denies everything. */}}
{{- define "pulsegate.networkPolicy" }}
{{- $ports := fromYaml (include "pulsegate.ports" .root) }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "pulsegate.fullname" .root }}-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "pulsegate.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "pulsegate.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- with include "pulsegate.ingressRules" . }}
  ingress: {{- . | nindent 4 }}
  {{- end }}
  egress:
    {{- include "pulsegate.dnsEgress" .root | nindent 4 }}
    {{- range $callee := .facts.calls }}
    - ports: [{protocol: TCP, port: {{ $ports.grpc }}}]
      to:
        - podSelector:
            matchLabels: {{- include "pulsegate.selectorLabels" (dict "root" $.root "name" $callee) | nindent 14 }}
    {{- end }}
    {{- range $server := .facts.servers }}
    {{- include "pulsegate.serverEgress" (dict "root" $.root "server" $server) | nindent 4 }}
    {{- end }}
    {{- if and (eq .name "gateway") (or (include "pulsegate.prometheusUrl" .root) .root.Values.prometheusUrlFromSecret) }}
    {{- include "pulsegate.serverEgress" (dict "root" .root "server" "prometheus") | nindent 4 }}
    {{- end }}
    {{- if .facts.client }}
    {{- if .root.Values.canary.url }}
    {{- include "pulsegate.serverEgress" (dict "root" .root "server" "canary") | nindent 4 }}
    {{- else }}
    - ports: [{protocol: TCP, port: {{ $ports.public }}}]
      to:
        - podSelector:
            matchLabels: {{- include "pulsegate.selectorLabels" (dict "root" .root "name" "gateway") | nindent 14 }}
    {{- end }}
    {{- end }}
    {{- if and (eq .name "auth") .root.Values.mail.enabled }}
    {{- include "pulsegate.serverEgress" (dict "root" .root "server" "smtp") | nindent 4 }}
    {{- end }}
    {{- if eq .name "auth" }}
    {{- include "pulsegate.serverEgress" (dict "root" .root "server" "identityProviders") | nindent 4 }}
    {{- end }}
    {{- if include "pulsegate.readsVault" . }}
    {{- include "pulsegate.serverEgress" (dict "root" .root "server" "vault") | nindent 4 }}
    {{- end }}
    {{- if .root.Values.otlpEndpoint }}
    {{- include "pulsegate.serverEgress" (dict "root" .root "server" "otlp") | nindent 4 }}
    {{- end }}
    {{- with .root.Values.istio }}
    {{- if .enabled }}
    # Sidecars get their certificates and their configuration there.
    - ports: [{protocol: TCP, port: 15012}]
      to: {{- toYaml .controlPlane | nindent 8 }}
    {{- end }}
    {{- end }}
    {{- if .root.Values.profilesUrl }}
    {{- include "pulsegate.serverEgress" (dict "root" .root "server" "profiles") | nindent 4 }}
    {{- end }}
{{- end }}

{{/* One with an empty list of peers would let everybody in. */}}
{{- define "pulsegate.ingressRules" -}}
{{- if has "public" .facts.ports }}
- ports: [{protocol: TCP, port: public}]
  {{- with .root.Values.networkPolicy.publicFrom }}
  from:
    {{- toYaml . | nindent 4 }}
    {{- if and $.root.Values.canary.enabled (not $.root.Values.canary.url) }}
    - podSelector:
        matchLabels: {{- include "pulsegate.selectorLabels" (dict "root" $.root "name" "canary") | nindent 10 }}
    {{- end }}
  {{- end }}
{{- end }}
{{- with include "pulsegate.callersOf" . }}
- ports: [{protocol: TCP, port: grpc}]
  from: {{- . | nindent 4 }}
{{- end }}
{{- with include "pulsegate.scrapersOf" . }}
- ports: [{protocol: TCP, port: operations}]
  from: {{- . | nindent 4 }}
{{- end }}
{{- end }}

{{- define "pulsegate.scrapersOf" -}}
{{- with .root.Values.networkPolicy.metricsFrom }}
{{- toYaml . }}
{{- end }}
{{- if .root.Values.evaluation.enabled }}
- podSelector:
    matchLabels: {{- include "pulsegate.selectorLabels" (dict "root" .root "name" "evaluation-prometheus") | nindent 6 }}
{{- end }}
{{- end }}

{{/* Those whose row of the topology says that they call this one. */}}
{{- define "pulsegate.callersOf" -}}
{{- range $caller, $facts := fromYaml (include "pulsegate.topology" .root) }}
{{- if has $.name $facts.calls }}
- podSelector:
    matchLabels: {{- include "pulsegate.selectorLabels" (dict "root" $.root "name" $caller) | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pulsegate.dnsEgress" -}}
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
  to: {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
{{- end }}

{{/*
The way to one backing server: one of the evaluation profile, or outside. None where it has no ports: a rule without
any would allow them all. Takes root and server.
*/}}
{{- define "pulsegate.serverEgress" -}}
{{- $outside := index .root.Values.networkPolicy.servers .server -}}
{{- $inside := get (dict "postgres" "postgres" "valkey" "valkey" "nats" "nats" "prometheus" "prometheus" "sinks" "prometheus") .server -}}
{{- if $outside.ports }}
- ports:
    {{- range $outside.ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- if and .root.Values.evaluation.enabled $inside }}
  to:
    - podSelector:
        matchLabels: {{- include "pulsegate.selectorLabels" (dict "root" .root "name" (printf "evaluation-%s" $inside)) | nindent 10 }}
  {{- else }}
  {{- with $outside.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}
