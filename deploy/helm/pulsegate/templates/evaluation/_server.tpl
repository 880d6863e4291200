{{/* Where a server of the evaluation profile is. Takes root and name. */}}
{{- define "pulsegate.evaluationHost" -}}
{{ include "pulsegate.fullname" .root }}-evaluation-{{ .name }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end }}

{{/*
One backing server of the evaluation profile: a single replica with a volume, its Service and who may reach it.
Takes root, name, user (numeric), port, callers (components), container (more of the container, as YAML), volumes (as
YAML) and dataPath.
*/}}
{{- define "pulsegate.evaluationServer" }}
{{- $scope := dict "root" .root "name" (printf "evaluation-%s" .name) }}
{{- $full := printf "%s-evaluation-%s" (include "pulsegate.fullname" .root) .name }}
{{- $values := index .root.Values.evaluation .name }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $full }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "pulsegate.labels" $scope | nindent 4 }}
spec:
  clusterIP: None
  selector: {{- include "pulsegate.selectorLabels" $scope | nindent 4 }}
  ports:
    - {name: {{ .name }}, port: {{ .port }}, targetPort: {{ .name }}, protocol: TCP}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $full }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "pulsegate.labels" $scope | nindent 4 }}
spec:
  serviceName: {{ $full }}
  replicas: 1
  selector:
    matchLabels: {{- include "pulsegate.selectorLabels" $scope | nindent 6 }}
  template:
    metadata:
      labels: {{- include "pulsegate.labels" $scope | nindent 8 }}
      annotations:
        checksum/configuration: {{ .configuration | default "" | sha256sum }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        runAsUser: {{ .user }}
        runAsGroup: {{ .user }}
        fsGroup: {{ .user }}
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: {{ .name }}
          image: {{ $values.image }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          ports:
            - {name: {{ .name }}, containerPort: {{ .port }}, protocol: TCP}
          {{- .container | nindent 10 }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          securityContext: {{- include "pulsegate.containerSecurity" .root | nindent 12 }}
          volumeMounts:
            - {name: data, mountPath: {{ .dataPath }}}
            - {name: tmp, mountPath: /tmp}
            {{- .mounts | nindent 12 }}
      volumes:
        - name: tmp
          emptyDir: {}
        {{- .volumes | nindent 8 }}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .root.Values.evaluation.storage.className }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ .root.Values.evaluation.storage.size }}}}
{{- if .root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $full }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "pulsegate.labels" $scope | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "pulsegate.selectorLabels" $scope | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports: [{protocol: TCP, port: {{ .name }}}]
      from:
        {{- range .callers }}
        - podSelector:
            matchLabels: {{- include "pulsegate.selectorLabels" (dict "root" $.root "name" .) | nindent 14 }}
        {{- end }}
  {{- with .egress }}
  egress: {{- . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
