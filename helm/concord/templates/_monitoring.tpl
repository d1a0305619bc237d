{{/* What the objects of monitoring.yaml and the pods have in common. */}}

{{/* Not empty if anything of this chart has the metrics of processes read. */}}
{{- define "concord.monitoring.scraped" -}}
{{- with .Values.monitoring -}}
{{- if or .podMonitor.enabled .serviceMonitor.enabled .annotations.enabled }}yes{{ end -}}
{{- end -}}
{{- end -}}

{{/* Annotations of a pod that a Prometheus without the operator finds its way by; empty if not wanted. */}}
{{- define "concord.monitoring.annotations" -}}
{{- if .Values.monitoring.annotations.enabled -}}
prometheus.io/scrape: "true"
prometheus.io/port: "8080"
prometheus.io/path: /metrics
{{- end -}}
{{- end -}}

{{/*
How a process is read. All have the job `concord`, by which alerts know them; the site is that of the pod's label, and a
pod that belongs to none has none.
*/}}
{{- define "concord.monitoring.endpoint" -}}
path: /metrics
interval: {{ .Values.monitoring.interval }}
relabelings:
  - {targetLabel: job, replacement: concord}
  - {sourceLabels: [__meta_kubernetes_pod_label_concord_dev_site], targetLabel: site}
  - {sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_component], targetLabel: component}
{{- end -}}

{{- define "concord.monitoring.metadata" -}}
name: {{ include "concord.fullname" . }}
labels:
  {{- include "concord.labels" . | nindent 2 }}
  {{- with .Values.monitoring.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The groups of rules, with the values of this release in the places marked by `@`. */}}
{{- define "concord.monitoring.groups" -}}
{{- $monitoring := .Values.monitoring -}}
{{- $url := replace "{alert}" "${1}" $monitoring.runbookUrl -}}
{{- $groups := list -}}
{{- range $path, $_ := .Files.Glob "files/rules/*.yaml" -}}
  {{- $text := $.Files.Get $path -}}
  {{- range $name, $value := $monitoring.rules.thresholds }}{{ $text = replace (printf "@%s@" $name) (toJson $value) $text }}{{ end -}}
  {{- $text = regexReplaceAll "@runbook:([A-Za-z0-9]+)@" $text $url -}}
  {{- $groups = concat $groups ($text | fromYaml).groups -}}
{{- end -}}
{{ $groups | toYaml }}
{{- end -}}
