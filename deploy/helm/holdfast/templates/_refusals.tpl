{{/* What cannot work in a shape, or not as it was meant: refused before anything is installed (rule H1). */}}

{{- define "holdfast.refusals" -}}
{{- if ne .Values.shape "gateway" -}}
{{- include "holdfast.refuseTenancy" . -}}
{{- end -}}
{{- end -}}

{{/* Who says whose a request is (rule X2), where the chart does not make all of Envoy's config. */}}
{{- define "holdfast.refuseTenancy" -}}
{{- $tenancy := .Values.settings.tenancy | default dict -}}
{{- $source := $tenancy.source | default "" -}}
{{- if eq $source "jwt" -}}
{{- fail "settings.tenancy.source: tokens are verified by your Envoy here: take the tenant from its `metadata` (docs/kubernetes.md)" -}}
{{- end -}}
{{- $kept := eq (toString $tenancy.header_from_gateway) "true" -}}
{{- if and (eq $source "header") (has .Values.shape (list "envoyGateway" "istio")) (not $kept) -}}
{{- fail "settings.tenancy.source: nothing that this shape makes takes the header from what clients send, so a client could choose its tenant: take it from `metadata`, or set tenancy.header_from_gateway if whatever sets the header replaces the clients' own on every route (docs/tenancy.md)" -}}
{{- end -}}
{{- end -}}
