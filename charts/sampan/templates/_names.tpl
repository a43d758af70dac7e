{{- /*
The names are fixed, not made of the release's: two installers on one node would undo each other's work, so a second
release has to be refused. Helm does so, because these objects belong to the first.
*/ -}}
{{- define "sampan.name" -}}
sampan-node
{{- end }}

{{- define "sampan.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "sampan.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: sampan
{{- end }}

{{- define "sampan.selector" -}}
app.kubernetes.io/name: {{ include "sampan.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The pods that stand on every node, not those of the hook and the test. */ -}}
{{- define "sampan.installer" -}}
{{ include "sampan.selector" . }}
app.kubernetes.io/component: installer
{{- end }}

{{- define "sampan.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ printf "%s@%s" .repository .digest }}
{{- else -}}
{{ printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* Handlers to be registered on the nodes: those that have a RuntimeClass. */ -}}
{{- define "sampan.handlers" -}}
{{- $handlers := list -}}
{{- range $name, $class := .Values.runtimeClasses -}}
{{- if and (kindIs "map" $class) (hasKey $class "enabled") -}}
{{- if $class.enabled -}}{{- $handlers = append $handlers $name -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- required "runtimeClasses: at least one has to be enabled" (join "," $handlers) -}}
{{- end }}

{{- define "sampan.toleration" -}}
- key: {{ .key | quote }}
  operator: Equal
  value: {{ .value | quote }}
  effect: {{ .effect }}
{{- end }}

{{- /* Of the one for all signals the path of this one follows (OpenTelemetry, "Endpoint URLs for OTLP/HTTP"). */ -}}
{{- define "sampan.traces" -}}
{{- if eq .protocol "grpc" -}}
{{ .endpoint }}
{{- else -}}
{{ printf "%s/v1/traces" (trimSuffix "/" .endpoint) }}
{{- end -}}
{{- end }}
