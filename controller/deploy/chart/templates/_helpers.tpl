{{/* What selects the pods of one part. Never changes: selectors are immutable. */}}
{{- define "pierhead.selector" -}}
app.kubernetes.io/name: pierhead
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* Labels of everything; takes the root. */}}
{{- define "pierhead.labels" -}}
app.kubernetes.io/name: pierhead
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "pierhead.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Whether classes refer to parameters: addresses of nodes are what there is without any. */}}
{{- define "pierhead.parameters" -}}
{{- if ne .Values.addresses.type "Node" }}true{{ end -}}
{{- end }}
