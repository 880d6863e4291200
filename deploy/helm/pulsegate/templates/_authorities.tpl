{{/*
Authorities of the installation's own. Python's ssl and libpq (`sslrootcert=system`) read the first variable, gRPC the
second, where nothing else is named: services among each other believe those of `mtls` alone. Each takes root.
*/}}
{{- define "pulsegate.authoritiesVariables" -}}
{{- with .root.Values.trustedAuthorities }}
{{- if or .configMap .secret }}
SSL_CERT_FILE: /run/authorities/pulsegate/{{ .key }}
GRPC_DEFAULT_SSL_ROOTS_FILE_PATH: /run/authorities/pulsegate/{{ .key }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pulsegate.authoritiesMounts" -}}
{{- with .root.Values.trustedAuthorities }}
{{- if or .configMap .secret }}
- {name: authorities, mountPath: /run/authorities/pulsegate, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{- define "pulsegate.authoritiesVolumes" -}}
{{- with .root.Values.trustedAuthorities }}
{{- if and .configMap .secret }}{{ fail "trustedAuthorities: name a configMap or a secret, not both" }}{{ end }}
{{- $items := printf "items: [{key: %s, path: %s}]" .key .key }}
{{- with .configMap }}
- name: authorities
  configMap: {name: {{ . }}, {{ $items }}}
{{- end }}
{{- with .secret }}
- name: authorities
  secret: {secretName: {{ . }}, defaultMode: 0440, {{ $items }}}
{{- end }}
{{- end }}
{{- end }}
