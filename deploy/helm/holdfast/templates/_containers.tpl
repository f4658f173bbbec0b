{{/* The containers of a pod. */}}

{{- define "holdfast.mounts" -}}
- {name: run, mountPath: /run/holdfast}
- {name: tmp, mountPath: /tmp}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Before Envoy starts, its config is written by the image that the workers run, from the settings that they have:
there is no copy of it in this chart.
*/}}
{{- define "holdfast.configContainer" -}}
name: envoy-config
image: {{ include "holdfast.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [/bin/sh, -c, holdfast config --envoy > /run/holdfast/envoy.yaml]
envFrom:
  - configMapRef: {name: {{ include "holdfast.fullname" . }}-settings}
# The secret settings too: which ones go together is checked when they are read.
env:
  {{- include "holdfast.secretEnvironment" . | nindent 2 }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
resources:
  requests: {cpu: 50m, memory: 96Mi}
  limits: {memory: 256Mi}
volumeMounts:
  {{- include "holdfast.mounts" . | nindent 2 }}
{{- end -}}

{{/* A native sidecar: it starts before the workers, which call the model through it, and ends after them. */}}
{{- define "holdfast.envoyContainer" -}}
name: envoy
image: {{ include "holdfast.envoyImage" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
restartPolicy: Always
command: [/usr/local/bin/envoy]
args:
  - --config-path
  - /run/holdfast/envoy.yaml
  - --concurrency
  - {{ .Values.gateway.concurrency | quote }}
  - --log-level
  - warning
  - --disable-hot-restart
  # A pod that goes asks each client at its next answer to connect anew.
  - --drain-strategy
  - immediate
  - --drain-time-s
  - {{ .Values.gateway.drain.mostSeconds | quote }}
ports:
  - {name: http, containerPort: {{ .Values.gateway.port }}, protocol: TCP}
startupProbe:
  tcpSocket: {port: http}
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  tcpSocket: {port: http}
  periodSeconds: 5
livenessProbe:
  tcpSocket: {port: http}
  periodSeconds: 10
  failureThreshold: 6
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
resources:
  {{- toYaml .Values.gateway.resources | nindent 2 }}
volumeMounts:
  {{- include "holdfast.mounts" . | nindent 2 }}
{{- end -}}

{{/* A quantity of Kubernetes in bytes. */}}
{{- define "holdfast.bytes" -}}
{{- $text := toString . -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- if not (hasKey $units $unit) }}{{ fail (printf "resources.limits.memory: %s is no quantity that this chart knows" $text) }}{{ end -}}
{{- mulf (trimSuffix $unit $text | float64) (get $units $unit) | int64 -}}
{{- end -}}

{{/* Documents are read in processes of the workers' container: what they may take has to fit in beside the workers. */}}
{{- define "holdfast.checkMemory" -}}
{{- $limit := dig "limits" "memory" "" .Values.resources -}}
{{- if $limit -}}
{{- $settings := .Values.settings -}}
{{- $documents := $settings.extraction -}}
{{- $workers := dig "sidecar" "workers" 1 $settings | int64 -}}
{{- $read := add (int64 $documents.concurrency) (int64 $documents.request_concurrency) -}}
{{- $needed := mul $workers (add 536870912 (mul $read (int64 $documents.memory_bytes))) -}}
{{- if lt (include "holdfast.bytes" $limit | int64) $needed -}}
{{- fail (printf "resources.limits.memory: %v is too little: %d worker(s) of 512Mi, each reading %d documents of settings.extraction.memory_bytes at a time (settings.extraction.concurrency and request_concurrency), take up to %dMi" $limit $workers $read (div (add $needed 1048575) 1048576)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What temporary files take at most: each document that is read stands there, up to its largest size. */}}
{{- define "holdfast.tmpMebibytes" -}}
{{- $settings := .Values.settings -}}
{{- $documents := $settings.extraction -}}
{{- $requests := mul (int64 $documents.request_concurrency) (dig "files" "input_bytes" 10485760 $settings | int64) -}}
{{- $read := add (mul (int64 $documents.concurrency) (int64 $documents.document_bytes)) $requests -}}
{{- add 512 (div (mul (dig "sidecar" "workers" 1 $settings | int64) $read) 1048576) -}}
{{- end -}}

{{- define "holdfast.workersContainer" -}}
{{- include "holdfast.checkMemory" . -}}
name: holdfast
image: {{ include "holdfast.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve]
envFrom:
  {{- with .Values.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  # The last one wins.
  - configMapRef: {name: {{ include "holdfast.fullname" . }}-settings}
env:
  {{- include "holdfast.secretEnvironment" . | nindent 2 }}
  {{- with include "holdfast.extraEnvironment" . }}
  {{- . | nindent 2 }}
  {{- end }}
{{- if or .Values.metrics.enabled (ne .Values.shape "gateway") }}
ports:
  {{- if ne .Values.shape "gateway" }}
  - {name: grpc-ext-proc, containerPort: {{ .Values.processor.port }}, protocol: TCP}
  - {name: http-content, containerPort: {{ .Values.processor.contentPort }}, protocol: TCP}
  {{- end }}
  {{- if .Values.metrics.enabled }}
  - {name: metrics, containerPort: {{ .Values.metrics.port }}, protocol: TCP}
  {{- end }}
{{- end }}
{{- if eq .Values.shape "gateway" }}
# By gRPC health on the workers' sockets, which only this container reaches. A blocked worker is replaced by
# its supervisor, so that there is nothing to be told of by a liveness probe.
startupProbe:
  exec: {command: [holdfast, health]}
  periodSeconds: 2
  timeoutSeconds: 10
  failureThreshold: 60
readinessProbe:
  exec: {command: [holdfast, health]}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 2
lifecycle:
  preStop:
    exec:
      command:
        - holdfast
        - drain
        - --least
        - {{ .Values.gateway.drain.leastSeconds | quote }}
        - --most
        - {{ .Values.gateway.drain.mostSeconds | quote }}
{{- else }}
startupProbe:
  grpc: {port: {{ .Values.processor.port }}}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 60
# A worker that is busy for a second keeps its load: taken out, its load goes to the others, and then it is they who
# are. A pod that goes leaves the Service without being asked, and a blocked worker is ended by its supervisor.
readinessProbe:
  grpc: {port: {{ .Values.processor.port }}}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 3
lifecycle:
  preStop:
    exec:
      command: [sleep, {{ .Values.processor.lingerSeconds | quote }}]
{{- end }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  {{- include "holdfast.mounts" . | nindent 2 }}
  {{- with include "holdfast.filesMount" . }}
  - {name: files, mountPath: {{ . }}}
  {{- end }}
{{- end -}}
