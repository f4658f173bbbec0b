{{/* What cannot work in a shape, or not as it was meant: refused before anything is installed (rule H1). */}}

{{- define "holdfast.refusals" -}}
{{- if ne .Values.shape "gateway" -}}
{{- include "holdfast.refuseTenancy" . -}}
{{- end -}}
{{- include "holdfast.refuseWhatEnvoyWouldMiss" . -}}
{{- end -}}

{{/* Settings that Envoy would have to know, and that nothing here could tell it. */}}
{{- define "holdfast.refuseWhatEnvoyWouldMiss" -}}
{{- $envoys := .Files.Get "files/envoy_settings.yaml" | fromYaml -}}
{{- $told := dict "root" . "names" $envoys.process "why" "only `holdfast up` reads it (gateway.concurrency, gateway.image)" -}}
{{- include "holdfast.refuse" $told -}}
{{- if or (eq .Values.shape "envoyGateway") (eq .Values.shape "istio") -}}
{{- $names := append $envoys.config "model.ca_file" -}}
{{- $why := "the Envoy of this shape is told by resources of your own, and nothing would come of it here (docs/kubernetes.md)" -}}
{{- include "holdfast.refuse" (dict "root" . "names" $names "why" $why) -}}
{{- else if and (eq .Values.shape "envoy") .Values.envoy.createConfig -}}
{{- $names := concat $envoys.config (list "tenancy.mode" "limits.body_bytes" "model.ca_file" "model.connect_seconds") -}}
{{- $why := "the ConfigMap of this shape cannot tell Envoy (envoy.createConfig: false, and your own config; docs/kubernetes.md)" -}}
{{- include "holdfast.refuse" (dict "root" . "names" $names "why" $why) -}}
{{- end -}}
{{- end -}}

{{/* Fail with `why` if one of the settings `names` is given, by value or from a Secret. */}}
{{- define "holdfast.refuse" -}}
{{- $asked := . -}}
{{- range $name := .names -}}
{{- $place := splitList "." $name -}}
{{- $given := get ($asked.root.Values.settings | default dict) (first $place) | default dict -}}
{{- if and (hasKey $given (last $place)) (not (kindIs "invalid" (get $given (last $place)))) -}}
{{- fail (printf "settings.%s: %s" $name $asked.why) -}}
{{- end -}}
{{- $secret := get (get $asked.root.Values.secrets (first $place) | default dict) (last $place) | default dict -}}
{{- if $secret.name -}}
{{- fail (printf "secrets.%s: %s" $name $asked.why) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Who says whose a request is (rule X2), where the chart does not make all of Envoy's config. */}}
{{- define "holdfast.refuseTenancy" -}}
{{- $tenancy := .Values.settings.tenancy | default dict -}}
{{- $source := $tenancy.source | default "" -}}
{{- if eq $source "jwt" -}}
{{- fail "settings.tenancy.source: tokens are verified by your Envoy here: take the tenant from its `metadata` (docs/kubernetes.md)" -}}
{{- end -}}
{{- range $field, $from := .Values.secrets.tenancy | default dict -}}
{{- if $from.name -}}
{{- fail (printf "secrets.tenancy.%s: whose a request is has to stand in `settings`, where the chart can judge it" $field) -}}
{{- end -}}
{{- end -}}
{{- $kept := eq (toString $tenancy.header_from_gateway) "true" -}}
{{- if and (eq $source "header") (has .Values.shape (list "envoyGateway" "istio")) (not $kept) -}}
{{- fail "settings.tenancy.source: nothing that this shape makes takes the header from what clients send, so a client could choose its tenant: take it from `metadata`, or set tenancy.header_from_gateway if whatever sets the header replaces the clients' own on every route (docs/tenancy.md)" -}}
{{- end -}}
{{- end -}}
