{{/* Names, labels, images: what all manifests share. */}}

{{- define "holdfast.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "holdfast.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "holdfast.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "holdfast.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/*
The name of this installation among those of the whole cluster, which may be called the same in other namespaces:
what shares an Envoy or a namespace with others is called so. A namespace's name has no dot, so no two give one.
*/}}
{{- define "holdfast.nameInCluster" -}}
{{- printf "%s.%s" .Release.Namespace (include "holdfast.fullname" .) -}}
{{- end -}}

{{/* The name of what is made in the namespace of Envoy's pods. */}}
{{- define "holdfast.nameAtEnvoy" -}}
{{- if eq (include "holdfast.envoyNamespace" .) .Release.Namespace -}}
{{- include "holdfast.fullname" . -}}
{{- else -}}
{{- include "holdfast.nameInCluster" . -}}
{{- end -}}
{{- end -}}

{{/*
The Service that Envoy Gateway makes beside its proxies for the model's turns. A Service has no dot in its name and at
most 63 characters: two that are cut to the same are told apart by the digest.
*/}}
{{- define "holdfast.modelService" -}}
{{- $digest := include "holdfast.nameInCluster" . | sha256sum | trunc 8 -}}
{{- $start := printf "%s-%s" (include "holdfast.fullname" .) .Release.Namespace | trunc 48 | trimSuffix "-" -}}
{{- printf "%s-%s-model" $start $digest -}}
{{- end -}}

{{- define "holdfast.selector" -}}
app.kubernetes.io/name: {{ include "holdfast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "holdfast.labels" -}}
{{ include "holdfast.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "holdfast.image" -}}
{{- $image := .Values.image -}}
{{- $repository := required "image.repository: where did you push the image of deploy/docker/Dockerfile?" $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "holdfast.envoyImage" -}}
{{- $image := .Values.gateway.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository $image.tag -}}
{{- end -}}
{{- end -}}

{{/* The name of the workers' Service, as pods of any namespace find it. */}}
{{- define "holdfast.host" -}}
{{- printf "%s.%s.svc.%s" (include "holdfast.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- end -}}

{{/* Where Envoy's pods are, if they are not ours. */}}
{{- define "holdfast.envoyNamespace" -}}
{{- if eq .Values.shape "envoyGateway" -}}
{{- .Values.envoyGateway.namespace -}}
{{- else if eq .Values.shape "istio" -}}
{{- .Values.istio.namespace -}}
{{- else -}}
{{- default .Release.Namespace .Values.envoy.namespace -}}
{{- end -}}
{{- end -}}

{{/* What Envoy's pods are labelled with. */}}
{{- define "holdfast.envoyPods" -}}
{{- if eq .Values.shape "envoyGateway" -}}
app.kubernetes.io/managed-by: envoy-gateway
{{- else if eq .Values.shape "istio" -}}
{{- toYaml .Values.istio.selector -}}
{{- else -}}
{{- toYaml .Values.envoy.podLabels -}}
{{- end -}}
{{- end -}}
