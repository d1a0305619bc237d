{{/* What is refused, with the reason. What can be said of one value alone stands in values.schema.json. */}}

{{- define "concord.checks" -}}
{{- $v := .Values -}}
{{- $tls := ne $v.tls.mode "disabled" -}}
{{- if and $v.insecure $tls }}{{ fail "insecure: it needs tls.mode: disabled" }}{{ end -}}
{{- if and $v.insecure (or $v.secret.enabled $v.secret.existingSecret) }}{{ fail "insecure: a shared secret is given as well; choose one" }}{{ end -}}
{{- if and (not $tls) (not $v.insecure) (eq (toString $v.secret.enabled) "false") -}}
  {{- fail "tls.mode: disabled leaves sites without any proof of who is calling; keep secret.enabled, or say insecure: true" -}}
{{- end -}}
{{- if and $v.externalRedis.enabled (not $v.externalRedis.existingSecret) -}}
  {{- fail "externalRedis.existingSecret: name the Secret that holds the URL of each site's Redis" -}}
{{- end -}}
{{- if and $v.monitoring.podMonitor.enabled $v.monitoring.serviceMonitor.enabled -}}
  {{- fail "monitoring: podMonitor and serviceMonitor would both have every process read; choose one" -}}
{{- end -}}
{{- if and $v.peers $v.fleet.enabled }}{{ fail "fleet.enabled: the fleet knows the sites of one cluster only; it cannot be had together with peers" }}{{ end -}}
{{- if and $v.peers (not $tls) (not $v.insecure) (not $v.secret.existingSecret) -}}
  {{- fail "secret.existingSecret: sites in several clusters need the same secret; create it in each and name it here" -}}
{{- end -}}
{{- end -}}

{{/* Names that could not stand in objects, and two that would be one. Arguments: root, names, local, peers, fullname. */}}
{{- define "concord.checks.names" -}}
{{- if not .local }}{{ fail "sites: there is none" }}{{ end -}}
{{- $suffixes := ternary (list "exchange" "inference" "trainer" "redis") (list "exchange" "inference") (eq .root.Values.layout "split") -}}
{{- $longest := ternary "-trainer" "" (eq .root.Values.layout "split") -}}
{{- $lower := dict -}}
{{- range $name, $_ := .peers -}}
  {{- if hasKey $.local $name -}}
    {{- fail (printf "peers: %s is also one of this release's sites; a list, such as sites: [n1], replaces the sites of values.yaml" $name) -}}
  {{- end -}}
{{- end -}}
{{- range $name := .names -}}
  {{- if not (regexMatch "^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$" $name) -}}
    {{- fail (printf "sites: '%s' is no name for a site: letters, digits and - inside, at most 63" $name) -}}
  {{- end -}}
  {{- if has $name (list "true" "false") }}{{ fail (printf "sites: YAML has made '%s' of a name; put it in quotation marks" $name) }}{{ end -}}
  {{- if hasKey $lower (lower $name) -}}
    {{- fail (printf "sites: %s and %s are one name in lower case, which objects need" (get $lower (lower $name)) $name) -}}
  {{- end -}}
  {{- $_ := set $lower (lower $name) $name -}}
{{- end -}}
{{- range $name, $_ := .local -}}
  {{- /* A StatefulSet's name and a hash are the value of a label of its pods. */ -}}
  {{- $object := printf "%s-%s%s" $.fullname (lower $name) $longest -}}
  {{- if gt (len $object) 52 -}}
    {{- fail (printf "sites: the name of an object, %s, has %d characters; 52 are possible: shorten that of the release or the site" $object (len $object)) -}}
  {{- end -}}
  {{- range $suffix := $suffixes -}}
    {{- if hasKey $lower (printf "%s-%s" (lower $name) $suffix) -}}
      {{- fail (printf "sites: %s and %s-%s would share an object's name; rename one" $name (lower $name) $suffix) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuse an edge over which nothing could pass. Arguments: one, other, members. */}}
{{- define "concord.checks.reach" -}}
{{- $ours := (get .members .one).reach | default "both" -}}
{{- $theirs := (get .members .other).reach | default "both" -}}
{{- if and (ne $ours "both") (eq $ours $theirs) -}}
  {{- fail (printf "topology: %s and %s are neighbours and both are %s: no update could pass" .one .other $ours) -}}
{{- end -}}
{{- end -}}
