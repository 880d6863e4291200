{{/* A pod of one track. Takes what `pulsegate.component` puts together. */}}
{{- define "pulsegate.pod" -}}
{{- $ports := fromYaml (include "pulsegate.ports" .root) -}}
serviceAccountName: {{ include "pulsegate.fullname" .root }}-{{ .name }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .spec.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext: {{- include "pulsegate.podSecurity" .root | nindent 2 }}
terminationGracePeriodSeconds: {{ include "pulsegate.graceSeconds" . }}
containers:
  - name: {{ .name }}
    image: {{ include "pulsegate.trackImage" . }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [python, -m, {{ .facts.module }}]
    {{- with .facts.arguments }}
    args: {{- toYaml . | nindent 6 }}
    {{- end }}
    env:
      {{- range $variable, $value := fromYaml (include "pulsegate.environment" .) }}
      - name: {{ $variable }}
        value: {{ $value | quote }}
      {{- end }}
    ports:
      {{- range $port := append .facts.ports "operations" }}
      - {name: {{ $port }}, containerPort: {{ index $ports $port }}, protocol: TCP}
      {{- end }}
    {{- include "pulsegate.probes" . | nindent 4 }}
    {{- if and (has "grpc" .facts.ports) (gt (int .spec.shutdown.preStopSeconds) 0) }}
    # Callers find another one by DNS before this one refuses new calls.
    lifecycle:
      preStop:
        sleep: {seconds: {{ .spec.shutdown.preStopSeconds }}}
    {{- end }}
    resources: {{- toYaml .spec.resources | nindent 6 }}
    securityContext: {{- include "pulsegate.containerSecurity" .root | nindent 6 }}
    volumeMounts:
      {{- include "pulsegate.secretMounts" . | nindent 6 }}
      {{- include "pulsegate.authoritiesMounts" . | nindent 6 }}
      - {name: tmp, mountPath: /tmp}
      {{- if include "pulsegate.tlsMounted" . }}
      - {name: tls, mountPath: /run/tls/pulsegate, readOnly: true}
      {{- end }}
      {{- if .facts.client }}
      - {name: state, mountPath: /var/lib/pulsegate}
      {{- end }}
      {{- if include "pulsegate.mtlsMounted" . }}
      - {name: mtls, mountPath: /run/mtls/pulsegate, readOnly: true}
      {{- if .root.Values.mtls.authorities }}
      - {name: mtls-authorities, mountPath: /run/mtls/authorities, readOnly: true}
      {{- end }}
      {{- end }}
volumes:
  {{- include "pulsegate.secretVolumes" . | nindent 2 }}
  {{- include "pulsegate.authoritiesVolumes" . | nindent 2 }}
  - name: tmp
    emptyDir: {sizeLimit: 64Mi}
  {{- if include "pulsegate.tlsMounted" . }}
  - name: tls
    secret: {secretName: {{ include "pulsegate.tlsSecret" .root }}, defaultMode: 0440}
  {{- end }}
  {{- if .facts.client }}
  {{- include "pulsegate.canaryState" .root | nindent 2 }}
  {{- end }}
  {{- if include "pulsegate.mtlsMounted" . }}
  - name: mtls
    secret: {secretName: {{ include "pulsegate.mtlsSecret" . }}, defaultMode: 0440}
  {{- with .root.Values.mtls.authorities }}
  - name: mtls-authorities
    configMap: {name: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}
  {{- end }}
  {{- end }}
topologySpreadConstraints: {{- include "pulsegate.spread" . | nindent 2 }}
{{- with .spec.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .spec.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .spec.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "pulsegate.trackImage" -}}
{{- include "pulsegate.image" (dict "root" .root "image" .spec.image
    "trackTag" .trackValues.tag "trackDigest" (index (.trackValues.digests | default dict) .name | default "")) -}}
{{- end }}

{{/* The time that a container has between the wish that it ends and SIGKILL: all that it takes, and a little. */}}
{{- define "pulsegate.graceSeconds" -}}
{{ add (include "pulsegate.endSeconds" .) 20 }}
{{- end }}

{{/* What an end may take: waiting until nobody calls any more, then finishing what is under way. */}}
{{- define "pulsegate.endSeconds" -}}
{{- $before := ternary .spec.shutdown.preStopSeconds 0 (has "grpc" .facts.ports) -}}
{{- $unready := ternary .spec.shutdown.unreadySeconds 0 (eq .name "gateway") -}}
{{ add (int $before) (int $unready) (int .spec.shutdown.drainSeconds) }}
{{- end }}

{{/*
The first answers once every hard dependency was there, so a start may wait for five minutes; the second never looks at
a dependency; the third is gRPC's own health service where the service speaks it, which says the same as /health/ready. The kubelet has no certificate
to show, so with mutual TLS it asks there.
*/}}
{{- define "pulsegate.probes" -}}
{{- $ports := fromYaml (include "pulsegate.ports" .root) -}}
startupProbe:
  httpGet: {path: /health/startup, port: operations}
  {{- toYaml .root.Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /health/live, port: operations}
  {{- toYaml .root.Values.probes.live | nindent 2 }}
readinessProbe:
  {{- if and (has "grpc" .facts.ports) (not .root.Values.mtls.enabled) }}
  grpc: {port: {{ $ports.grpc }}}
  {{- else }}
  httpGet: {path: /health/ready, port: operations}
  {{- end }}
  {{- toYaml .root.Values.probes.ready | nindent 2 }}
{{- end }}

{{/* Over zones first, over nodes then; each revision of a Deployment by itself. */}}
{{- define "pulsegate.spread" -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: {{ $.spec.spread.whenUnsatisfiable }}
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "pulsegate.selectorLabels" $ | nindent 6 }}
      {{- include "pulsegate.trackLabel" $ | nindent 6 }}
{{- end }}
{{- end }}

{{/* The pod security standard `restricted`, and no write to the image's files. */}}
{{- define "pulsegate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "pulsegate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}
