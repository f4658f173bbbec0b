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

{{/* What pods listen on, as it stands before a port. */}}
{{- define "holdfast.listenHost" -}}
{{- ternary "[::]" .Values.listenAddress (eq .Values.listenAddress "::") -}}
{{- end -}}

{{- define "holdfast.ownSettings" -}}
sidecar:
  run_dir: /run/holdfast
  {{- if ne .Values.shape "gateway" }}
  listen: "{{ include "holdfast.listenHost" . }}:{{ .Values.processor.port }}"
  content_listen: "{{ include "holdfast.listenHost" . }}:{{ .Values.processor.contentPort }}"
  workers: 1
  {{- end }}
model:
  url: {{ include "holdfast.turnsUrl" . | quote }}
  {{- if ne .Values.shape "gateway" }}
  via: url
  {{- end }}
metrics:
  enabled: {{ .Values.metrics.enabled }}
  listen: "{{ include "holdfast.listenHost" . }}:{{ .Values.metrics.port }}"
{{- with include "holdfast.filesMount" . }}
files:
  directory: {{ . }}/files
{{- end }}
{{- if eq .Values.shape "gateway" }}
listen:
  host: {{ .Values.listenAddress | quote }}
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

{{/* A ConfigMap is read by whoever may look: no secret gets there, whatever the values say. */}}
{{- define "holdfast.refuseSecrets" -}}
{{- range .Files.Get "files/secret_settings.yaml" | fromYamlArray -}}
{{- $place := splitList "." . -}}
{{- $section := get $.Values.settings (index $place 0) | default dict -}}
{{- $found := list (dict "it" (get $section (index $place 1))) -}}
{{- $key := "it" -}}
{{- if eq (len $place) 3 -}}
{{- $found = get $section (index $place 1) | default list -}}
{{- if kindIs "string" $found }}{{ $found = fromJsonArray $found }}{{ end -}}
{{- $key = index $place 2 -}}
{{- end -}}
{{- range $each := $found -}}
{{- if get $each $key -}}
{{- fail (printf "settings.%s is a secret, and settings are in a ConfigMap: secrets.%s.%s names the Secret that has it" (join "." $place) (index $place 0) (index $place 1)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "holdfast.environment" -}}
{{- include "holdfast.refuseSecrets" . -}}
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
{{- if and (ne .Values.shape "gateway") (not (dig "sealing" "keys" "name" "" .Values.secrets)) (not (dig "sealing" "key_files" "" .Values.settings)) -}}
{{- fail "secrets.sealing.keys.name: which Secret has the keys by which workers know that a download went through ext_proc? (docs/kubernetes.md)" -}}
{{- end -}}
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

{{/* Variables of others, beside the settings: whoever writes `HOLDFAST_…` means a setting. */}}
{{- define "holdfast.extraEnvironment" -}}
{{- range .Values.extraEnv }}
{{- if hasPrefix "HOLDFAST_" .name -}}
{{- fail (printf "extraEnv: %s is a setting: it goes into `settings`, or into `secrets` if it is one" .name) -}}
{{- end -}}
{{- end -}}
{{- with .Values.extraEnv }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* What a pod needs at most from being told to go to its end, in whole seconds: as `holdfast serve` counts. */}}
{{- define "holdfast.graceSeconds" -}}
{{- $sidecar := .Values.settings.sidecar -}}
{{- $before := ternary .Values.gateway.drain.mostSeconds .Values.processor.lingerSeconds (eq .Values.shape "gateway") -}}
{{- $workers := addf $sidecar.drain_seconds $sidecar.grace_seconds .Values.settings.postgres.timeout_seconds 4.5 -}}
{{- addf $before $workers 10 | ceil | int -}}
{{- end -}}
