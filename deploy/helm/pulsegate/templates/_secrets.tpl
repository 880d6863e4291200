{{/*
Where processes read secrets: out of Secrets, mounted as files, or out of Vault. What follows takes root and read, a map
variable -> item of `secrets.items`; volumes and the checksum also take vaultSecret, the Secret with the AppRole.
*/}}

{{/* The secrets that a component reads: variable -> item. Takes root, name and facts. */}}
{{- define "pulsegate.secretsOf" -}}
{{- if not .facts.client }}
PULSEGATE_SERVICE_TOKEN: serviceToken
{{- end }}
{{ toYaml .facts.secrets }}
{{- if and (eq .name "auth") .root.Values.mail.enabled }}
PULSEGATE_SMTP_URL: smtpUrl
{{- end }}
{{- if and (eq .name "gateway") .root.Values.prometheusUrlFromSecret (not (include "pulsegate.prometheusUrl" .root)) }}
PULSEGATE_PROMETHEUS_URL: prometheusUrl
{{- end }}
{{- if eq .name "aggregator" }}
{{- if not (include "pulsegate.remoteWriteUrl" .root) }}
PULSEGATE_REMOTE_WRITE_URL: remoteWriteUrl
{{- end }}
{{- if .root.Values.sinks.headersFromSecret }}
PULSEGATE_SINK_HEADERS: sinkHeaders
{{- end }}
{{- end }}
{{- end }}

{{/* The name of the Secret that holds one of `secrets.items`. Takes root and item. */}}
{{- define "pulsegate.secretName" -}}
{{- $item := index .root.Values.secrets.items .item -}}
{{- if and .root.Values.evaluation.enabled (ne .item "canaryKey") -}}
{{ include "pulsegate.fullname" .root }}-evaluation
{{- else -}}
{{ $item.existingSecret | default .root.Values.secrets.existingSecret }}
{{- end -}}
{{- end }}

{{/* Where an item is in Vault; empty: it is in a Secret. Takes root and item. */}}
{{- define "pulsegate.vaultPath" -}}
{{- with (index .root.Values.secrets.items .item).vault -}}
{{- if not $.root.Values.evaluation.enabled -}}
{{- if not $.root.Values.vault.address }}{{ fail "vault.address: where is the Vault that secrets.items names?" }}{{ end -}}
{{ . }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The items that are in Secrets, as a list. */}}
{{- define "pulsegate.mountedItems" -}}
{{- $mounted := list }}
{{- range $item := values .read | uniq | sortAlpha }}
{{- if not (include "pulsegate.vaultPath" (dict "root" $.root "item" $item)) }}{{ $mounted = append $mounted $item }}{{ end }}
{{- end }}
{{- toYaml $mounted }}
{{- end }}

{{/* Whether anything is read out of Vault. */}}
{{- define "pulsegate.readsVault" -}}
{{- range $item := values .read }}{{ if include "pulsegate.vaultPath" (dict "root" $.root "item" $item) }}yes{{ end }}{{ end -}}
{{- end }}

{{/* What a process is told: variable -> text. */}}
{{- define "pulsegate.secretVariables" -}}
{{- range $variable, $item := .read }}
{{- with include "pulsegate.vaultPath" (dict "root" $.root "item" $item) }}
{{ $variable }}: {{ printf "vault:%s" . | quote }}
{{- else }}
{{ $variable }}_FILE: /run/secrets/pulsegate/{{ $item }}
{{- end }}
{{- end }}
{{- if include "pulsegate.readsVault" . }}
PULSEGATE_VAULT_ADDRESS: {{ .root.Values.vault.address }}
PULSEGATE_VAULT_ROLE_ID_FILE: /run/vault/pulsegate/role-id
PULSEGATE_VAULT_SECRET_ID_FILE: /run/vault/pulsegate/secret-id
{{- with .root.Values.vault.authorityKey }}
PULSEGATE_VAULT_CA_PATH: /run/vault/pulsegate/{{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pulsegate.secretMounts" -}}
{{- if fromYamlArray (include "pulsegate.mountedItems" .) }}
- {name: secrets, mountPath: /run/secrets/pulsegate, readOnly: true}
{{- end }}
{{- if include "pulsegate.readsVault" . }}
- {name: vault, mountPath: /run/vault/pulsegate, readOnly: true}
{{- end }}
{{- end }}

{{/* Only the items that are read, from whatever Secrets they are in. */}}
{{- define "pulsegate.secretVolumes" -}}
{{- with fromYamlArray (include "pulsegate.mountedItems" .) }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- $bySecret := dict }}
      {{- range $item := . }}
      {{- $secret := include "pulsegate.secretName" (dict "root" $.root "item" $item) }}
      {{- $_ := set $bySecret $secret (append (index $bySecret $secret | default list) $item) }}
      {{- end }}
      {{- range $secret, $items := $bySecret }}
      - secret:
          name: {{ $secret }}
          items:
            {{- range $items }}
            - {key: {{ (index $.root.Values.secrets.items .).key }}, path: {{ . }}}
            {{- end }}
      {{- end }}
{{- end }}
{{- if include "pulsegate.readsVault" . }}
- name: vault
  secret:
    secretName: {{ .vaultSecret }}
    defaultMode: 0440
    items:
      {{- range compact (list "role-id" "secret-id" .root.Values.vault.authorityKey) }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}
{{- end }}

{{/*
Changes when a mounted Secret has changed, so that the next upgrade restarts who reads it. Always the same where the
cluster cannot be asked (`helm template`, Argo CD) or must not (`secrets.restartOnChange: false`), and for evaluation,
whose Secret comes with the first installation and never changes.
*/}}
{{- define "pulsegate.secretsChecksum" -}}
{{- $found := list -}}
{{- if and .root.Values.secrets.restartOnChange (not .root.Values.evaluation.enabled) -}}
{{- range $item := fromYamlArray (include "pulsegate.mountedItems" .) -}}
{{- $name := include "pulsegate.secretName" (dict "root" $.root "item" $item) -}}
{{- $secret := lookup "v1" "Secret" $.root.Release.Namespace $name -}}
{{- $found = append $found (index ($secret.data | default dict) (index $.root.Values.secrets.items $item).key) -}}
{{- end -}}
{{- if include "pulsegate.readsVault" . -}}
{{- $found = append $found (lookup "v1" "Secret" .root.Release.Namespace .vaultSecret).data -}}
{{- end -}}
{{- end -}}
{{ toJson $found | sha256sum }}
{{- end }}
