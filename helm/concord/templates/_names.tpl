{{/* Names and labels. Whatever selects pods must stay the same from version to version, so no version is in it. */}}

{{- define "concord.fullname" -}}
{{- $chart := .Values.nameOverride | default .Chart.Name -}}
{{- if .Values.fullnameOverride -}}{{ .Values.fullnameOverride }}
{{- else if contains $chart .Release.Name -}}{{ .Release.Name }}
{{- else -}}{{ printf "%s-%s" .Release.Name $chart }}
{{- end -}}
{{- end -}}

{{/* What all pods of the release have in common. */}}
{{- define "concord.instanceLabels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "concord.labels" -}}
{{ include "concord.instanceLabels" . }}
app.kubernetes.io/part-of: concord
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Arguments of the templates below: root, site (of the model), component. */}}

{{- define "concord.site.selector" -}}
{{ include "concord.instanceLabels" .root }}
app.kubernetes.io/component: {{ .component }}
concord.dev/site: {{ .site.name | quote }}
{{- end -}}

{{- define "concord.site.labels" -}}
{{ include "concord.labels" .root }}
app.kubernetes.io/component: {{ .component }}
concord.dev/site: {{ .site.name | quote }}
{{- end -}}

{{- define "concord.site.podLabels" -}}
{{- $own := dict "app.kubernetes.io/part-of" "concord" "concord.dev/federation" .model.federation -}}
{{- $selector := include "concord.site.selector" . | fromYaml -}}
{{ mergeOverwrite (deepCopy .site.spec.podLabels) $own $selector | toYaml }}
{{- end -}}

{{/* Labels and selector of a pod that belongs to no site. Arguments: root, component. */}}

{{- define "concord.part.selector" -}}
{{ include "concord.instanceLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "concord.part.labels" -}}
{{ include "concord.labels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* `{site}` in a pattern replaced by the site's name in lower case. Arguments: pattern, site. */}}
{{- define "concord.forSite" -}}
{{ replace "{site}" .site.lower .pattern }}
{{- end -}}
