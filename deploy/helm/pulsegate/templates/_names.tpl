{{- define "pulsegate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/* Labels that never change in the life of an object. Takes root and name. */}}
{{- define "pulsegate.selectorLabels" -}}
app.kubernetes.io/name: pulsegate
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{/* Labels of every object. Takes root and name. */}}
{{- define "pulsegate.labels" -}}
{{ include "pulsegate.selectorLabels" . }}
app.kubernetes.io/part-of: pulsegate
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* The Service under which other services find one. Takes root and name. */}}
{{- define "pulsegate.serviceHost" -}}
{{ include "pulsegate.fullname" .root }}-{{ .name }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end }}

{{/* An image; a digest decides where there is one. Takes root, image (repository, tag, digest) and the track's. */}}
{{- define "pulsegate.image" -}}
{{- $tag := .trackTag | default .image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- $digest := ternary .trackDigest .image.digest (or (not (empty .trackTag)) (not (empty .trackDigest))) -}}
{{- $all := .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- if and $digest (empty .trackDigest) (empty .image.tag) (ne $all .root.Chart.AppVersion) }}
{{- fail (printf "image.tag: %s would not be what runs, because the digest of %s goes before it: leave out images.yaml, or name that image's own tag" $all .image.repository) }}
{{- end -}}
{{- with .root.Values.image.registry }}{{ . }}/{{ end }}{{ .image.repository }}:{{ $tag }}{{ with $digest }}@{{ . }}{{ end }}
{{- end }}

{{/* The values of the track that migrates, which has the newest images. */}}
{{- define "pulsegate.newestTrack" -}}
{{ toYaml (index .Values.tracks (.Values.migrations.track | default "stable") | default dict) }}
{{- end }}

{{/* A value as the text of a variable: whole numbers without an exponent. */}}
{{- define "pulsegate.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* A component's values: `defaults`, and over them its own, key by key. Takes root and name. */}}
{{- define "pulsegate.spec" -}}
{{- $spec := deepCopy .root.Values.defaults }}
{{- include "pulsegate.overlay" (dict "onto" $spec "own" (index .root.Values .name)) }}
{{- toYaml $spec }}
{{- end }}

{{/* Changes a map: an empty or false value counts too, which mergeOverwrite would pass over. Takes onto and own. */}}
{{- define "pulsegate.overlay" }}
{{- range $key, $value := .own }}
{{- if and (kindIs "map" $value) (kindIs "map" (index $.onto $key)) }}
{{- include "pulsegate.overlay" (dict "onto" (index $.onto $key) "own" $value) }}
{{- else }}
{{- $_ := set $.onto $key $value }}
{{- end }}
{{- end }}
{{- end }}
