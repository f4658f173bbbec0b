{{/* What files/envoy.yaml asks for: the config of an Envoy that is not ours. */}}

{{- define "holdfast.sidecarEndpoints" -}}
{{- $address := dict "address" (include "holdfast.host" .) "port_value" (int .Values.processor.port) -}}
{{- list (dict "endpoint" (dict "address" (dict "socket_address" $address))) | toJson -}}
{{- end -}}

{{- define "holdfast.contentEndpoints" -}}
{{- $address := dict "address" (include "holdfast.host" .) "port_value" (int .Values.processor.contentPort) -}}
{{- list (dict "endpoint" (dict "address" (dict "socket_address" $address))) | toJson -}}
{{- end -}}

{{- define "holdfast.modelEndpoints" -}}
{{- $servers := list -}}
{{- range splitList "," (include "holdfast.modelUrl" .) -}}
{{- $url := urlParse (trim .) -}}
{{- if or (ne $url.scheme "http") (not (has (trimSuffix "/" $url.path) (list "" "/v1"))) -}}
{{- fail (printf "model.url: the ConfigMap knows http://HOST:PORT alone, not %s (envoy.createConfig: false, and your own config)" .) -}}
{{- end -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default "80" -}}
{{- $address := dict "address" (regexReplaceAll ":[0-9]+$" $url.host "" | trimAll "[]") "port_value" (int $port) -}}
{{- $servers = append $servers (dict "endpoint" (dict "address" (dict "socket_address" $address) "hostname" $url.host)) -}}
{{- end -}}
{{- toJson $servers -}}
{{- end -}}
