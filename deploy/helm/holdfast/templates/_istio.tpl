{{/* What only Istio has to be told. */}}

{{/*
The Service of the model servers as Istio calls it, with its port, as JSON. Istio completes a name without a dot alone:
`vllm.models` would be a host that it does not know. Its routes lead to one host, without TLS of their own and with
the path as it came.
*/}}
{{- define "holdfast.istioModel" -}}
{{- $given := include "holdfast.modelUrl" . -}}
{{- $label := "[a-z0-9]([-a-z0-9]*[a-z0-9])?" -}}
{{- if not (regexMatch (printf "^http://%s([.]%s)*(:[0-9]+)?(/v1)?/?$" $label $label) $given) -}}
{{- fail (printf "model.url: Istio is told of one Service, http://NAME.NAMESPACE:PORT: no https, no path, no address and no list can be in %s (docs/kubernetes.md)" $given) -}}
{{- end -}}
{{- $host := regexReplaceAll ":[0-9]+$" (urlParse $given).host "" -}}
{{- if regexMatch "^[0-9.]+$" $host -}}
{{- fail (printf "model.url: Istio is told of a Service, http://NAME.NAMESPACE:PORT, not of the address %s: a Service or a ServiceEntry gives it a name (docs/kubernetes.md)" $host) -}}
{{- end -}}
{{- $labels := splitList "." $host -}}
{{- if eq (len $labels) 1 -}}
{{- $host = printf "%s.%s.svc.%s" $host .Release.Namespace .Values.clusterDomain -}}
{{- else if eq (len $labels) 2 -}}
{{- $host = printf "%s.svc.%s" $host .Values.clusterDomain -}}
{{- else if and (eq (len $labels) 3) (eq (last $labels) "svc") -}}
{{- $host = printf "%s.%s" $host .Values.clusterDomain -}}
{{- end -}}
{{- dict "host" $host "port" (regexFind "[0-9]+$" (regexFind ":[0-9]+$" (urlParse $given).host) | default "80" | int) | toJson -}}
{{- end -}}
