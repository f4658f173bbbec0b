{{/* Settings as the environment of `holdfast`: those of the shape, and yours over them. */}}

{{- define "holdfast.modelUrl" -}}
{{- required "model.url: where are the model servers?" .Values.model.url -}}
{{- end -}}

{{/* Where the workers send the turns of the model. */}}
{{- define "holdfast.turnsUrl" -}}
{{- if eq .Values.shape "envoyGateway" -}}
{{- $gateway := .Values.envoyGateway -}}
http://{{ include "holdfast.modelService" . }}.{{ $gateway.namespace }}.svc.{{ .Values.clusterDomain }}:{{ $gateway.modelGateway.port }}
{{- else if eq .Values.shape "envoy" -}}
http://{{ required "envoy.host: under which name do the workers find your Envoy?" .Values.envoy.host }}:{{ .Values.envoy.modelPort }}
{{- else -}}
{{- include "holdfast.modelUrl" . -}}
{{- end -}}
{{- end -}}

{{- define "holdfast.ownSettings" -}}
sidecar:
  run_dir: /run/holdfast
  {{- if ne .Values.shape "gateway" }}
  listen: 0.0.0.0:{{ .Values.processor.port }}
  workers: 1
  {{- end }}
model:
  url: {{ include "holdfast.turnsUrl" . | quote }}
  {{- if ne .Values.shape "gateway" }}
  via: url
  {{- end }}
metrics:
  enabled: {{ .Values.metrics.enabled }}
  listen: 0.0.0.0:{{ .Values.metrics.port }}
{{- if eq .Values.shape "gateway" }}
listen:
  host: 0.0.0.0
  port: {{ .Values.gateway.port }}
{{- end }}
{{- end -}}

{{/* A value as the environment has it: lists with commas, what is deeper as JSON. */}}
{{- define "holdfast.spelled" -}}
{{- if kindIs "string" . -}}
{{- . -}}
{{- else if kindIs "slice" . -}}
{{- $plain := true -}}
{{- range . }}{{ if not (kindIs "string" .) }}{{ $plain = false }}{{ end }}{{ end -}}
{{- if $plain }}{{ join "," . }}{{ else }}{{ toJson . }}{{ end -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{- define "holdfast.environment" -}}
{{- $all := mustMergeOverwrite (include "holdfast.ownSettings" . | fromYaml) (deepCopy .Values.settings) -}}
{{- if and (ne .Values.shape "gateway") (ne (int $all.sidecar.workers) 1) -}}
{{- fail "settings.sidecar.workers: a pod of this shape is one worker; `replicas` makes more of them" -}}
{{- end -}}
{{- include "holdfast.refusals" . -}}
{{- range $section, $fields := $all }}
{{- range $field, $value := $fields }}
{{- if not (kindIs "invalid" $value) }}
HOLDFAST_{{ upper $section }}__{{ upper $field }}: {{ include "holdfast.spelled" $value | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "holdfast.secretEnvironment" -}}
{{- $_ := required "secrets.postgres.url.name: which Secret has the connection string of Postgres?" .Values.secrets.postgres.url.name -}}
{{- range $section, $fields := .Values.secrets }}
{{- range $field, $from := $fields }}
{{- if $from.name }}
- name: HOLDFAST_{{ upper $section }}__{{ upper $field }}
  valueFrom:
    secretKeyRef:
      name: {{ $from.name }}
      key: {{ default $field $from.key }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What a pod needs at most from being told to go to its end, in whole seconds: as `holdfast serve` counts. */}}
{{- define "holdfast.graceSeconds" -}}
{{- $sidecar := .Values.settings.sidecar -}}
{{- $before := ternary .Values.gateway.drain.mostSeconds .Values.processor.lingerSeconds (eq .Values.shape "gateway") -}}
{{- $workers := addf $sidecar.drain_seconds $sidecar.grace_seconds .Values.settings.postgres.timeout_seconds 4.5 -}}
{{- addf $before $workers 10 | ceil | int -}}
{{- end -}}
