{{/*
The federation as a whole, computed from the values once per file: who the sites are, who their neighbours are, what the
job says. Files that render objects read it with `include "concord.model" . | fromJson`:

  federation, fullname, doorScheme, doorPort     the job's name; the objects' prefix; how sites call each other
  job         the job with all sites, and with the edges of the graph as pairs in alphabetical order
  members     what the membership document says of each site
  sites       the sites of this release: name, lower, base (prefix of its objects), spec (defaults and overrides),
              neighbours (sites of this release), remote (neighbours in other clusters), hosts, checksum of its job
*/}}

{{- define "concord.model" -}}
{{- include "concord.checks" . -}}
{{- $job := include "concord.job" . | fromJson -}}
{{- $peers := .Values.peers | default dict -}}
{{- $local := include "concord.sites" (dict "root" . "job" $job) | fromJson -}}
{{- $names := concat (keys $local) (keys $peers) | sortAlpha -}}
{{- $fullname := include "concord.fullname" . -}}
{{- include "concord.checks.names" (dict "root" . "names" $names "local" $local "peers" $peers "fullname" $fullname) -}}
{{- $table := include "concord.topology" (dict "names" $names "topology" (coalesce $job.topology .Values.topology "ring")) | fromJson -}}

{{- $tls := ne .Values.tls.mode "disabled" -}}
{{- $door := dict "scheme" (ternary "https" "http" $tls) "port" (ternary 8443 8080 $tls) -}}
{{- $sections := omit $job "sites" "topology" "simulation" -}}
{{- $jobSites := dict -}}
{{- $members := dict -}}
{{- $sites := list -}}
{{- $oneWay := false -}}
{{- range $name := $names -}}
  {{- $given := hasKey $local $name | ternary (get $local $name) (get $peers $name) | default dict -}}
  {{- include "concord.numbers" $given -}}
  {{- $said := pick $given "learning_rate" "local_steps" "batch_size" "weight" "reach" "shard" -}}
  {{- $member := pick $given "learning_rate" "local_steps" "reach" -}}
  {{- if hasKey $local $name -}}
    {{- $lower := lower $name -}}
    {{- $base := printf "%s-%s" $fullname $lower -}}
    {{- $service := printf "%s-exchange" $base -}}
    {{- $host := printf "%s.%s.svc" $service $.Release.Namespace -}}
    {{- $_ := set $member "url" (printf "%s://%s:%d" $door.scheme $host $door.port) -}}
    {{- $spec := mergeOverwrite (deepCopy $.Values.siteDefaults) (omit $given "name" "url" "learning_rate" "local_steps" "batch_size" "weight" "reach" "shard") -}}
    {{- $remote := list -}}
    {{- $neighbours := keys (get $table $name) | sortAlpha -}}
    {{- range keys $peers | sortAlpha -}}
      {{- if has . $neighbours }}{{ $remote = append $remote . }}{{ $neighbours = without $neighbours . }}{{ end -}}
    {{- end -}}
    {{- $sites = append $sites (dict
          "name" $name "lower" $lower "base" $base "service" $service "spec" $spec "member" $member
          "neighbours" $neighbours "remote" $remote
          "hosts" (concat (list $service (printf "%s.%s" $service $.Release.Namespace) $host (printf "%s.%s" $host $.Values.clusterDomain)) $spec.exchange.hostnames)
          "checksum" (dict "job" $sections "site" $said | toJson | sha256sum)) -}}
  {{- else if $given.url -}}
    {{- $_ := set $member "url" $given.url -}}
  {{- end -}}
  {{- if ne ($said.reach | default "both") "both" }}{{ $oneWay = true }}{{ end -}}
  {{- $_ := set $jobSites $name $said -}}
  {{- $_ := set $members $name $member -}}
{{- end -}}

{{- $edges := list -}}
{{- range $name := $names -}}
  {{- $pairs := list -}}
  {{- range $other := keys (get $table $name) | sortAlpha -}}
    {{- if lt $name $other -}}
      {{- $pairs = append $pairs (list $name $other) -}}
      {{- if $oneWay }}{{ include "concord.checks.reach" (dict "one" $name "other" $other "members" $members) }}{{ end -}}
    {{- end -}}
  {{- end -}}
  {{- $edges = concat $edges $pairs -}}
{{- end -}}
{{- $whole := merge (dict "sites" $jobSites "topology" (dict "kind" "edges" "edges" ($edges | default list))) $sections -}}
{{ dict "federation" $job.name "fullname" $fullname "tls" $tls "doorScheme" $door.scheme "doorPort" $door.port
     "job" $whole "members" $members "sites" $sites | toJson }}
{{- end -}}

{{/* The job as it was given, checked as far as the chart must understand it. */}}
{{- define "concord.job" -}}
{{- $job := deepCopy .Values.job -}}
{{- if kindIs "string" .Values.job -}}
  {{- $job = fromYaml .Values.job -}}
  {{- if hasKey $job "Error" }}{{ fail (printf "job: it is not a YAML mapping: %s" $job.Error) }}{{ end -}}
  {{- $known := list "name" "task" "split" "sites" "topology" "algorithm" "training" "privacy" "exchange" "evaluation" "checkpoint" "serving" "simulation" -}}
  {{- range $key, $_ := $job -}}
    {{- if not (has $key $known) }}{{ fail (printf "job: unknown key '%s'; known: %s" $key (join ", " $known)) }}{{ end -}}
  {{- end -}}
  {{- if not $job.task }}{{ fail "job: task is missing" }}{{ end -}}
{{- else -}}
  {{- /* Helm drops a null of values.yaml once anything beside it is changed; it means: no end. */ -}}
  {{- $training := $job.training | default dict -}}
  {{- if not (hasKey $training "rounds") }}{{ $_ := set $job "training" (set $training "rounds" nil) }}{{ end -}}
  {{- range $key, $section := omit $job "name" "task" -}}
    {{- if kindIs "map" $section }}{{ include "concord.numbers" $section }}{{ end -}}
  {{- end -}}
{{- end -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" (toString ($job.name | default ""))) -}}
  {{- fail (printf "job: name should be lower-case letters, digits and - inside, at most 63, found '%v'" ($job.name | default "")) -}}
{{- end -}}
{{ $job | toJson }}
{{- end -}}

{{/* Texts that are numbers become numbers, in place: `--set` makes a text of 0.05. */}}
{{- define "concord.numbers" -}}
{{- range $key, $value := . -}}
  {{- if and (kindIs "string" $value) (regexMatch "^-?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?$" $value) -}}
    {{- $_ := set $ $key (float64 $value) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* The sites of this release, name -> overrides, from any of the forms. Arguments: root, job. */}}
{{- define "concord.sites" -}}
{{- $given := .root.Values.sites -}}
{{- $peers := .root.Values.peers | default dict -}}
{{- $known := dict -}}
{{- if kindIs "map" $given }}{{ $known = $given }}{{ end -}}
{{- if hasKey .job "sites" }}{{ $given = .job.sites }}{{ end -}}
{{- $sites := dict -}}
{{- if kindIs "map" $given -}}
  {{- range $name, $overrides := $given }}{{ $_ := set $sites $name ($overrides | default dict) }}{{ end -}}
{{- else if kindIs "slice" $given -}}
  {{- range $entry := $given -}}
    {{- $overrides := kindIs "map" $entry | ternary $entry (dict "name" $entry) -}}
    {{- $name := $overrides.name | default "" | toString -}}
    {{- if hasKey $sites $name }}{{ fail (printf "sites: %s is listed twice" $name) }}{{ end -}}
    {{- $_ := set $sites $name (omit $overrides "name") -}}
  {{- end -}}
{{- else -}}
  {{- range untilStep 1 (add1 (int $given) | int) 1 }}{{ $_ := set $sites (printf "N%d" .) dict }}{{ end -}}
{{- end -}}
{{- if hasKey .job "sites" -}}
  {{- $allowed := list "learning_rate" "local_steps" "batch_size" "weight" "reach" "shard" "url" -}}
  {{- range $name, $overrides := $sites -}}
    {{- range $key, $_ := $overrides -}}
      {{- if not (has $key $allowed) }}{{ fail (printf "job: sites.%s: unknown key '%s'; known: %s" $name $key (join ", " $allowed)) }}{{ end -}}
    {{- end -}}
    {{- /* A file tells of all sites; those in other clusters are peers here. */ -}}
    {{- if hasKey $peers $name }}{{ $_ := unset $sites $name -}}
    {{- else }}{{ $_ := set $sites $name (mergeOverwrite (deepCopy $overrides) (get $known $name | default dict)) }}{{ end -}}
  {{- end -}}
{{- end -}}
{{ $sites | toJson }}
{{- end -}}

{{/* The document that sites follow, a site or an edge to the line. Arguments: root, model. */}}
{{- define "concord.membership" -}}
{"version": {{ .root.Release.Revision }},
"sites": {
{{- range $place, $name := keys .model.members | sortAlpha }}{{ if $place }},{{ end }}
{{ toJson $name }}: {{ get $.model.members $name | toJson }}
{{- end }}
},
"edges": [
{{- range $place, $edge := .model.job.topology.edges }}{{ if $place }},{{ end }}
{{ dict "sites" $edge "epoch" 1 | toJson }}
{{- end }}
]}
{{- end -}}
