{{/* Where the bytes of uploaded files are: the same place for every pod, or said to be none. */}}

{{/* What was chosen, by the name of its value; anything but one choice is refused. */}}
{{- define "holdfast.filesPlace" -}}
{{- $places := list -}}
{{- if or (dig "files" "url" "" .Values.settings) (dig "files" "url" "name" "" .Values.secrets) -}}
{{- $places = append $places "settings.files.url" -}}
{{- end -}}
{{- if .Values.files.volume }}{{ $places = append $places "files.volume" }}{{ end -}}
{{- if .Values.files.ephemeral }}{{ $places = append $places "files.ephemeral" }}{{ end -}}
{{- if not $places -}}
{{- fail "files: where do all pods find the files that clients upload? Set settings.files.url (an object store) or files.volume (a volume that all of them mount); files.ephemeral=true, to try it out, keeps them in each pod alone (docs/kubernetes.md)" -}}
{{- end -}}
{{- if gt (len $places) 1 -}}
{{- fail (printf "files: %s: which of them?" (join ", " $places)) -}}
{{- end -}}
{{- if hasKey .Values.files.volume "emptyDir" -}}
{{- fail "files.volume: an emptyDir is in one pod alone: files.ephemeral says so" -}}
{{- end -}}
{{- if dig "files" "directory" "" .Values.settings -}}
{{- fail "settings.files.directory: the chart sets it; files.volume is what is mounted there" -}}
{{- end -}}
{{- first $places -}}
{{- end -}}

{{/* Where the workers have it, if it is a directory. */}}
{{- define "holdfast.filesMount" -}}
{{- if ne (include "holdfast.filesPlace" .) "settings.files.url" -}}
/var/lib/holdfast
{{- end -}}
{{- end -}}

{{- define "holdfast.filesVolume" -}}
name: files
{{- if .Values.files.ephemeral }}
# Not with the temporary files: what clients upload takes no room from the documents that are being read.
emptyDir: {sizeLimit: {{ .Values.files.ephemeralSize }}}
{{- else }}
{{ toYaml .Values.files.volume }}
{{- end }}
{{- end -}}
