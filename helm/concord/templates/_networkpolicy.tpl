{{/* Rules of network policies. An empty `from` or `to` would mean everyone, so a rule without anybody is left out. */}}

{{- define "concord.policy.dns" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns.to | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.dns.ports }}
    - {protocol: UDP, port: {{ int . }}}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
{{- end -}}

{{- define "concord.policy.apiServer" -}}
- {{- with .Values.networkPolicy.apiServer.cidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- end }}
  ports:
    {{- range .Values.networkPolicy.apiServer.ports }}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
{{- end -}}

{{/*
The pods that neighbours' requests come from and go to: those of the edges, or with a fleet, which changes the edges as
it goes, all of the federation. Empty if a site has none in this cluster. Arguments: root, model, site.
*/}}
{{- define "concord.policy.neighbours" -}}
{{- $component := ternary "site" "exchange" (eq .root.Values.layout "combined") -}}
{{- if .root.Values.fleet.enabled -}}
- podSelector:
    matchLabels:
      app.kubernetes.io/part-of: concord
      concord.dev/federation: {{ .model.federation | quote }}
    matchExpressions:
      - {key: app.kubernetes.io/component, operator: In, values: [site, exchange]}
{{- else if .site.neighbours -}}
- podSelector:
    matchLabels:
      {{- include "concord.part.selector" (dict "root" .root "component" $component) | nindent 6 }}
    matchExpressions:
      - key: concord.dev/site
        operator: In
        values: {{ .site.neighbours | toJson }}
{{- end -}}
{{- end -}}

{{/* What comes in at the door. Arguments: root, model, site. */}}
{{- define "concord.policy.doorIngress" -}}
{{- $from := include "concord.policy.neighbours" . -}}
{{- if or $from .root.Values.tests.enabled }}
- from:
    {{- with $from }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- if .root.Values.tests.enabled }}
    - podSelector:
        matchLabels:
          {{- include "concord.part.selector" (dict "root" .root "component" "test") | nindent 10 }}
    {{- end }}
  ports:
    - {protocol: TCP, port: {{ int .model.doorPort }}}
{{- end }}
{{- range $name := .site.remote }}
- from:
    {{- range (get $.root.Values.peers $name).cidrs | default (list "0.0.0.0/0" "::/0") }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports:
    - {protocol: TCP, port: {{ int $.model.doorPort }}}
{{- end }}
{{- end -}}

{{/* What goes out to the doors of others. Arguments: root, model, site. */}}
{{- define "concord.policy.doorEgress" -}}
{{- with include "concord.policy.neighbours" . }}
- to:
    {{- . | nindent 4 }}
  ports:
    - {protocol: TCP, port: {{ int $.model.doorPort }}}
{{- end }}
{{- range $name := .site.remote }}
{{- $peer := get $.root.Values.peers $name }}
{{- with $peer.url }}
- to:
    {{- range $peer.cidrs | default (list "0.0.0.0/0" "::/0") }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports:
    - {protocol: TCP, port: {{ include "concord.policy.portOf" . }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "concord.policy.portOf" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{ $port | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- end -}}

{{/*
Who may read the REST interface. Arguments: root, predicts (whether it answers predictions), console (whether the
console asks it).
*/}}
{{- define "concord.policy.restIngress" -}}
{{- $from := .root.Values.networkPolicy.monitoring.from -}}
{{- if .predicts }}{{ $from = concat .root.Values.networkPolicy.inference.from $from }}{{ end -}}
{{- $loaded := and .predicts .root.Values.loadtest.enabled -}}
{{- $console := and .console .root.Values.console.enabled -}}
{{- if or $from $loaded $console .root.Values.tests.enabled }}
- from:
    {{- with $from }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if $console }}
    - podSelector:
        matchLabels:
          {{- include "concord.part.selector" (dict "root" .root "component" "console") | nindent 10 }}
    {{- end }}
    {{- if .root.Values.tests.enabled }}
    - podSelector:
        matchLabels:
          {{- include "concord.part.selector" (dict "root" .root "component" "test") | nindent 10 }}
    {{- end }}
    {{- if $loaded }}
    - podSelector:
        matchLabels:
          {{- include "concord.part.selector" (dict "root" .root "component" "loadtest") | nindent 10 }}
    {{- end }}
  ports:
    - {protocol: TCP, port: 8080}
{{- end }}
{{- end -}}

{{/* The way to the site's Redis, where it is not in the pod. Arguments: root, model, site. */}}
{{- define "concord.policy.redisEgress" -}}
{{- $external := .root.Values.externalRedis -}}
{{- if $external.enabled }}
- {{- with $external.cidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- end }}
  ports:
    - {protocol: TCP, port: {{ int $external.port }}}
{{- else if eq .root.Values.layout "split" }}
- to:
    - podSelector:
        matchLabels:
          {{- include "concord.site.selector" (dict "root" .root "site" .site "component" "redis") | nindent 10 }}
  ports:
    - {protocol: TCP, port: 6379}
{{- end }}
{{- end -}}
