{{/*
Everything that Kubernetes keeps for one service: its account, a Deployment with autoscaler and disruption budget for
each track, a Service and the network paths. Takes root and name.
*/}}
{{- define "pulsegate.component" -}}
{{- $spec := fromYaml (include "pulsegate.spec" .) }}
{{- $facts := index (fromYaml (include "pulsegate.topology" .root)) .name }}
{{- $scope := dict "root" .root "name" .name "spec" $spec "facts" $facts "vaultSecret" $spec.vault.existingSecret }}
{{- $_ := set $scope "read" (fromYaml (include "pulsegate.secretsOf" $scope)) }}
{{- include "pulsegate.serviceAccount" $scope }}
{{- if include "pulsegate.mtlsMounted" $scope }}{{ include "pulsegate.mtlsCertificate" $scope }}{{ end }}
{{- $tracks := .root.Values.tracks }}
{{- if $facts.client }}{{ $tracks = dict "stable" (pick (fromYaml (include "pulsegate.newestTrack" .root)) "tag" "digests") }}{{ end }}
{{- range $track, $values := $tracks }}
{{- if or (empty $values.components) (has $.name $values.components) }}
{{- $of := merge (dict "track" $track "trackValues" $values) $scope }}
{{- include "pulsegate.deployment" $of }}
{{- if not $facts.client }}
{{- if not $values.replicas }}{{ include "pulsegate.autoscaler" $of }}{{ end }}
{{- include "pulsegate.disruptionBudget" $of }}
{{- end }}
{{- end }}
{{- end }}
{{- include "pulsegate.services" $scope }}
{{- if .root.Values.networkPolicy.enabled }}{{ include "pulsegate.networkPolicy" $scope }}{{ end }}
{{- if .root.Values.istio.enabled }}{{ include "pulsegate.mesh" $scope }}{{ end }}
{{- end }}

{{/* The name of what exists once a track. The track `stable` is not named. Takes root, name and track. */}}
{{- define "pulsegate.trackName" -}}
{{ include "pulsegate.fullname" .root }}-{{ .name }}{{ if ne .track "stable" }}-{{ .track }}{{ end }}
{{- end }}

{{- define "pulsegate.trackLabel" -}}
pulsegate.dev/track: {{ .track }}
{{- end }}

{{- define "pulsegate.serviceAccount" }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "pulsegate.fullname" .root }}-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "pulsegate.labels" . | nindent 4 }}
  {{- with .spec.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
# No service speaks to the Kubernetes API.
automountServiceAccountToken: false
{{- end }}

{{- define "pulsegate.deployment" }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "pulsegate.trackName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "pulsegate.labels" . | nindent 4 }}
    {{- include "pulsegate.trackLabel" . | nindent 4 }}
spec:
  {{- if .facts.client }}
  replicas: 1
  {{- else if or .trackValues.replicas (not .spec.autoscaling.enabled) }}
  replicas: {{ .trackValues.replicas | default .spec.replicas }}
  {{- end }}
  revisionHistoryLimit: {{ .root.Values.revisionHistoryLimit }}
  strategy:
    {{- if .facts.client }}
    # Never two with one file.
    type: Recreate
    {{- else }}
    # One more before one less: at no time are there fewer that work than asked for.
    type: RollingUpdate
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
    {{- end }}
  selector:
    matchLabels:
      {{- include "pulsegate.selectorLabels" . | nindent 6 }}
      {{- include "pulsegate.trackLabel" . | nindent 6 }}
  template:
    metadata:
      # Without the chart's version: an upgrade that changes nothing else restarts nothing.
      labels:
        {{- include "pulsegate.selectorLabels" . | nindent 8 }}
        {{- include "pulsegate.trackLabel" . | nindent 8 }}
        {{- if .root.Values.istio.enabled }}
        sidecar.istio.io/inject: "true"
        {{- end }}
        {{- with .spec.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
      annotations:
        checksum/secrets: {{ include "pulsegate.secretsChecksum" . }}
        {{- if and .root.Values.istio.enabled (not (hasKey .spec.podAnnotations "proxy.istio.io/config")) }}
        proxy.istio.io/config: {{ include "pulsegate.sidecar" . | quote }}
        {{- end }}
        {{- with .spec.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec: {{- include "pulsegate.pod" . | nindent 6 }}
{{- end }}

{{/*
The CPU decides; for the aggregator, where a metrics adapter offers it, also how much waits in the log. More aggregators
than lanes would stand by.
*/}}
{{- define "pulsegate.autoscaler" }}
{{- with .spec.autoscaling }}
{{- if .enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "pulsegate.trackName" $ }}
  namespace: {{ $.root.Release.Namespace }}
  labels: {{- include "pulsegate.labels" $ | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "pulsegate.trackName" $ }}
  minReplicas: {{ .minReplicas }}
  maxReplicas: {{ .maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ .targetCPUUtilizationPercentage }}}
    {{- if .logLag.enabled }}
    - type: External
      external:
        metric:
          name: pulsegate_log_lag_frames
          selector:
            matchLabels: {namespace: {{ $.root.Release.Namespace }}}
        target: {type: AverageValue, averageValue: {{ .logLag.framesPerReplica | quote }}}
    {{- end }}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 300
{{- end }}
{{- end }}
{{- end }}

{{- define "pulsegate.disruptionBudget" }}
{{- if .spec.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "pulsegate.trackName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "pulsegate.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .spec.podDisruptionBudget.maxUnavailable }}
  # What is not ready serves nobody, and must not hold up the drain of a node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "pulsegate.selectorLabels" . | nindent 6 }}
      {{- include "pulsegate.trackLabel" . | nindent 6 }}
{{- end }}
{{- end }}
