{{/*
The graph of sites, as `concord.consensus.graph` computes it. A template can return text only, so each of these
returns JSON. An edge list grows slowly here, because `append` copies; that is why edges are kept as a table of
neighbours, a dict of dicts, until the end.
*/}}

{{/* The table of neighbours. Arguments: names (sorted), topology (a name, or a map with `kind`). */}}
{{- define "concord.topology" -}}
{{- $table := dict -}}
{{- range .names }}{{ $_ := set $table . dict }}{{ end -}}
{{- $options := kindIs "string" .topology | ternary (dict "kind" .topology) .topology -}}
{{- $kind := $options.kind | default "ring" -}}
{{- $call := dict "names" .names "table" $table "options" $options -}}
{{- if and (hasKey $options "columns") (ne $kind "grid") -}}
  {{- fail (printf "topology: %s takes no columns" $kind) -}}
{{- else if and (hasKey $options "edges") (ne $kind "edges") -}}
  {{- fail (printf "topology: %s takes no edges; say kind: edges" $kind) -}}
{{- else if eq $kind "edges" -}}{{ include "concord.topology.listed" $call }}
{{- else if eq $kind "star" -}}{{ include "concord.topology.star" $call }}
{{- else if eq $kind "chain" -}}{{ include "concord.topology.chain" $call }}
{{- else if eq $kind "grid" -}}{{ include "concord.topology.grid" $call }}
{{- else if eq $kind "random-regular" -}}
  {{- fail "topology: random-regular cannot be drawn here; list its edges instead: {kind: edges, edges: [[n1, n2], ...]}" -}}
{{- else -}}
  {{- $_ := set $call "hops" (include "concord.topology.hops" (dict "kind" $kind "count" (len .names)) | fromJsonArray) -}}
  {{- include "concord.topology.circulant" $call -}}
{{- end -}}
{{- include "concord.topology.connected" $call -}}
{{ $table | toJson }}
{{- end -}}

{{/* How many places on a site's neighbours are, for the topologies that look alike from every site. */}}
{{- define "concord.topology.hops" -}}
{{- $hops := list -}}
{{- if eq .kind "ring" }}{{ $hops = list 1 }}
{{- else if or (eq .kind "double-ring") (eq .kind "multiplex-ring") }}{{ $hops = list 1 2 }}
{{- else if eq .kind "complete" }}{{ $hops = untilStep 1 (add1 (div .count 2) | int) 1 }}
{{- else if eq .kind "exponential" }}
  {{- $hop := 1 }}
  {{- range until 20 }}
    {{- if lt $hop (int $.count) }}{{ $hops = append $hops $hop }}{{ end }}
    {{- $hop = mul $hop 2 | int }}
  {{- end }}
{{- else }}
  {{- fail (printf "topology: unknown kind '%s'; known: ring, double-ring, star, chain, grid, complete, exponential, edges" .kind) }}
{{- end -}}
{{ $hops | toJson }}
{{- end -}}

{{/* Tie two sites in the table. Arguments: table, one, other. */}}
{{- define "concord.topology.tie" -}}
{{- $_ := set (get .table .one) .other true -}}
{{- $_ := set (get .table .other) .one true -}}
{{- end -}}

{{- define "concord.topology.circulant" -}}
{{- $count := len .names -}}
{{- range $place, $site := .names -}}
  {{- range $hop := $.hops -}}
    {{- $other := index $.names (mod (add $place (int $hop)) $count | int) -}}
    {{- if ne $site $other -}}
      {{- $_ := set (get $.table $site) $other true -}}
      {{- $_ := set (get $.table $other) $site true -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "concord.topology.star" -}}
{{- $hub := first .names -}}
{{- range rest .names }}{{ include "concord.topology.tie" (dict "table" $.table "one" $hub "other" .) }}{{ end -}}
{{- end -}}

{{- define "concord.topology.chain" -}}
{{- $before := first .names -}}
{{- range rest .names -}}
  {{- include "concord.topology.tie" (dict "table" $.table "one" $before "other" .) -}}
  {{- $before = . -}}
{{- end -}}
{{- end -}}

{{- define "concord.topology.grid" -}}
{{- $count := len .names -}}
{{- $columns := int (.options.columns | default 0) -}}
{{- if not $columns -}}
  {{- $rows := 1 -}}
  {{- range $tried := untilStep 1 (add1 $count | int) 1 -}}
    {{- if gt (mul $tried $tried) $count }}{{ break }}{{ end -}}
    {{- if not (mod $count $tried) }}{{ $rows = $tried }}{{ end -}}
  {{- end -}}
  {{- if and (eq $rows 1) (gt $count 3) -}}
    {{- fail (printf "topology: %d sites make no grid of two or more rows; choose another number or a chain" $count) -}}
  {{- end -}}
  {{- $columns = div $count $rows | int -}}
{{- end -}}
{{- if mod $count $columns }}{{ fail (printf "topology: %d sites do not fill a grid of %d columns" $count $columns) }}{{ end -}}
{{- range $place, $site := .names -}}
  {{- $right := add1 $place | int -}}
  {{- if mod $right $columns -}}
    {{- include "concord.topology.tie" (dict "table" $.table "one" $site "other" (index $.names $right)) -}}
  {{- end -}}
  {{- $below := add $place $columns | int -}}
  {{- if lt $below $count -}}
    {{- include "concord.topology.tie" (dict "table" $.table "one" $site "other" (index $.names $below)) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "concord.topology.listed" -}}
{{- $edges := .options.edges -}}
{{- if kindIs "map" $edges -}}
  {{- range $site, $others := $edges -}}
    {{- range $other := $others -}}
      {{- include "concord.topology.known" (dict "table" $.table "one" $site "other" $other) -}}
      {{- if not (has $site (get $edges $other | default list)) -}}
        {{- fail (printf "topology: %s lists %s as a neighbour, but %s does not list %s" $site $other $other $site) -}}
      {{- end -}}
      {{- $_ := set (get $.table $site) $other true -}}
    {{- end -}}
  {{- end -}}
{{- else if kindIs "slice" $edges -}}
  {{- range $edge := $edges -}}
    {{- if ne (len $edge) 2 }}{{ fail (printf "topology: an edge joins two sites; %s names %d" ($edge | toJson) (len $edge)) }}{{ end -}}
    {{- $call := dict "table" $.table "one" (first $edge | toString) "other" (last $edge | toString) -}}
    {{- include "concord.topology.known" $call -}}
    {{- include "concord.topology.tie" $call -}}
  {{- end -}}
{{- else -}}
  {{- fail "topology: kind edges needs edges: pairs of sites, or a map of each site to its neighbours" -}}
{{- end -}}
{{- end -}}

{{- define "concord.topology.known" -}}
{{- $table := .table -}}
{{- range list .one .other -}}
  {{- if not (hasKey $table (toString .)) -}}
    {{- fail (printf "topology: the edge %v - %v names an unknown site '%v'; known: %s" $.one $.other . (keys $table | sortAlpha | join ", ")) -}}
  {{- end -}}
{{- end -}}
{{- if eq .one .other }}{{ fail (printf "topology: %s cannot be its own neighbour" .one) }}{{ end -}}
{{- end -}}

{{/* Refuse a graph in pieces: go out from the first site, ring by ring. */}}
{{- define "concord.topology.connected" -}}
{{- $found := dict (first .names) true -}}
{{- $frontier := dict (first .names) true -}}
{{- range .names -}}
  {{- if not $frontier }}{{ break }}{{ end -}}
  {{- $next := dict -}}
  {{- range $site, $_ := $frontier -}}
    {{- range $other, $_ := get $.table $site -}}
      {{- if not (hasKey $found $other) }}{{ $_ := set $found $other true }}{{ $_ := set $next $other true }}{{ end -}}
    {{- end -}}
  {{- end -}}
  {{- $frontier = $next -}}
{{- end -}}
{{- if lt (len $found) (len .names) -}}
  {{- $away := list -}}
  {{- range .names }}{{ if not (hasKey $found .) }}{{ $away = append $away . }}{{ end }}{{ end -}}
  {{- fail (printf "topology: it is not connected; from %s there is no way to %s" (first .names) ($away | join ", ")) -}}
{{- end -}}
{{- end -}}
