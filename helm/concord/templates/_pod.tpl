{{/* What pods are made of. Arguments of most: root, model, site. */}}

{{- define "concord.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}{{ printf "%s@%s" $image.repository $image.digest }}
{{- else -}}{{ printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{- define "concord.image.fields" -}}
image: {{ include "concord.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{/* The restricted level of the Pod Security Standards, in full, and a root file system that nobody writes. */}}
{{- define "concord.securityContext.pod" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "concord.securityContext.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The head of a site's pod. Arguments: root, site, component. */}}
{{- define "concord.pod.head" -}}
{{- $spec := .site.spec -}}
serviceAccountName: {{ include "concord.fullname" .root }}
automountServiceAccountToken: false
# Variables of a Service called concord would look like settings.
enableServiceLinks: false
securityContext:
  {{- include "concord.securityContext.pod" . | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $spec.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $spec.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $spec.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $spec.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if kindIs "slice" $spec.topologySpreadConstraints }}
{{- with $spec.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- else }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- if eq $.component "inference" }}
        {{- include "concord.site.selector" $ | nindent 8 }}
        {{- else }}
        {{- include "concord.part.selector" $ | nindent 8 }}
        {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "concord.pod.annotations" -}}
{{- $own := dict -}}
{{- if ne .component "redis" -}}
  {{- $_ := set $own "checksum/job" .site.checksum -}}
  {{- $own = merge $own (include "concord.monitoring.annotations" .root | fromYaml) -}}
{{- end -}}
{{- with mergeOverwrite (deepCopy .site.spec.podAnnotations) $own -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/*
Settings of a process: all that its variables must say. Arguments: root, model, site, component. The trainer needs
no address of others and no proof of identity, inference neither and no graph.
*/}}
{{- define "concord.env" -}}
{{- $v := .root.Values -}}
{{- $trains := has .component (list "site" "trainer") -}}
{{- $exchanges := has .component (list "site" "exchange") -}}
- name: CONCORD_JOB
  value: /etc/concord/job/job.yaml
- name: CONCORD_SITE
  value: {{ .site.name | quote }}
- name: CONCORD_HOST
  value: 0.0.0.0
- name: CONCORD_PORT
  value: "8080"
- name: CONCORD_CONNECTIONS
  value: {{ .site.spec.connections.most | int | quote }}
- name: CONCORD_CONNECTIONS_PER_ADDRESS
  value: {{ .site.spec.connections.perAddress | int | quote }}
{{ include "concord.env.redis" . }}
{{- include "concord.env.log" .root }}
{{- if $trains }}
- name: CONCORD_STATE_DIR
  value: /var/lib/concord/state
- name: CONCORD_DATA
  value: /var/lib/concord/data
- name: CONCORD_THREADS
  value: {{ .site.spec.threads | int | quote }}
{{- end }}
{{- if eq .component "inference" }}
- name: CONCORD_DRAIN
  value: {{ .site.spec.inference.drainSeconds | int | quote }}
{{- end }}
{{- if and $v.adminToken.existingSecret (has .component (list "site" "inference")) }}
- name: CONCORD_ADMIN_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ $v.adminToken.existingSecret }}
      key: {{ $v.adminToken.key }}
{{- end }}
{{- if or $trains $exchanges }}
- name: CONCORD_TOPOLOGY
  value: /etc/concord/topology/topology.json
{{- end }}
{{- if $exchanges }}
{{- if .model.tls }}
- name: CONCORD_TLS_DIR
  value: /etc/concord/tls
- name: CONCORD_EXCHANGE_PORT
  value: {{ .model.doorPort | int | quote }}
{{- end }}
{{- if include "concord.secret.used" .root }}
- name: CONCORD_SECRET_FILE
  value: /etc/concord/secret/secret
{{- end }}
{{- if $v.insecure }}
- name: CONCORD_INSECURE
  value: "true"
{{- end }}
{{- end }}
{{- with .site.spec.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* How a process writes its log, where that is not the default. */}}
{{- define "concord.env.log" -}}
{{- with .Values.log -}}
{{- if ne .format "text" }}
- name: CONCORD_LOG_FORMAT
  value: {{ .format }}
{{- end }}
{{- if ne .level "info" }}
- name: CONCORD_LOG_LEVEL
  value: {{ .level }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "concord.env.redis" -}}
{{- $v := .root.Values -}}
{{- if $v.externalRedis.enabled -}}
- name: CONCORD_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ $v.externalRedis.existingSecret }}
      key: {{ include "concord.forSite" (dict "pattern" $v.externalRedis.key "site" .site) | quote }}
{{- else -}}
{{ include "concord.env.redisPassword" . }}
- name: CONCORD_REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ ternary "127.0.0.1" (printf "%s-redis" .site.base) (eq $v.layout "combined") }}:6379/0
{{- end -}}
{{- end -}}

{{- define "concord.env.redisPassword" -}}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .root.Values.redis.existingSecret | default (printf "%s-redis" .model.fullname) }}
      key: {{ include "concord.forSite" (dict "pattern" .root.Values.redis.key "site" .site) | quote }}
{{- end -}}

{{/* Not empty if requests between sites are signed with a shared secret. */}}
{{- define "concord.secret.used" -}}
{{- $secret := .Values.secret -}}
{{- if kindIs "bool" $secret.enabled -}}{{ ternary "yes" "" $secret.enabled }}
{{- else if or $secret.existingSecret (and (eq .Values.tls.mode "disabled") (not .Values.insecure)) -}}yes
{{- end -}}
{{- end -}}

{{- define "concord.tls.secretName" -}}
{{- if eq .root.Values.tls.mode "existingSecrets" -}}
{{ include "concord.forSite" (dict "pattern" .root.Values.tls.existingSecrets.name "site" .site) }}
{{- else -}}
{{ printf "%s-tls-%s" .model.fullname .site.lower }}
{{- end -}}
{{- end -}}

{{- define "concord.mounts" -}}
- name: tmp
  mountPath: /tmp
- name: job
  mountPath: /etc/concord/job
  readOnly: true
{{- if has .component (list "site" "trainer") }}
- name: state
  mountPath: /var/lib/concord
{{- end }}
{{- if ne .component "inference" }}
- name: topology
  mountPath: /etc/concord/topology
  readOnly: true
{{- end }}
{{- if has .component (list "site" "exchange") }}
{{- if .model.tls }}
- name: tls
  mountPath: /etc/concord/tls
  readOnly: true
{{- end }}
{{- if include "concord.secret.used" .root }}
- name: secret
  mountPath: /etc/concord/secret
  readOnly: true
{{- end }}
{{- end }}
{{- with .site.spec.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The volumes of a pod, except those that a StatefulSet claims. */}}
{{- define "concord.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 256Mi
- name: job
  configMap:
    name: {{ .model.fullname }}-job
{{- if and (has .component (list "site" "trainer")) (not .site.spec.persistence.enabled) }}
- name: state
  emptyDir: {}
{{- end }}
{{- if ne .component "inference" }}
# A folder and no single file, because only a folder follows the ConfigMap while the pod runs.
- name: topology
  configMap:
    name: {{ include "concord.topology.configMap" . }}
{{- end }}
{{- if has .component (list "site" "exchange") }}
{{- if .model.tls }}
- name: tls
  secret:
    secretName: {{ include "concord.tls.secretName" . }}
    defaultMode: 0440
{{- end }}
{{- if include "concord.secret.used" .root }}
- name: secret
  secret:
    secretName: {{ .root.Values.secret.existingSecret | default (printf "%s-secret" .model.fullname) }}
    defaultMode: 0440
    items:
      - key: {{ .root.Values.secret.key }}
        path: secret
{{- end }}
{{- end }}
{{- with .site.spec.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* That of the fleet has a name of its own, so that Helm never takes it for one that is the chart's. */}}
{{- define "concord.topology.configMap" -}}
{{ .model.fullname }}-{{ ternary "fleet-topology" "topology" .root.Values.fleet.enabled }}
{{- end -}}

{{/* Probes over HTTP. Arguments: root. */}}
{{- define "concord.probes" -}}
{{- $probes := .root.Values.probes -}}
startupProbe:
  httpGet: {path: /startupz, port: http}
  {{- toYaml $probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /healthz, port: http}
  {{- toYaml $probes.liveness | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: http}
  {{- toYaml $probes.readiness | nindent 2 }}
{{- end -}}

{{/* A container that runs `concord <component>`, without its probes' opinion on when. */}}
{{- define "concord.container" -}}
- name: {{ .component }}
  {{- include "concord.image.fields" .root | nindent 2 }}
  args: [{{ .component }}]
  env:
    {{- include "concord.env" . | nindent 4 }}
  ports:
    - name: http
      containerPort: 8080
    {{- if and .model.tls (has .component (list "site" "exchange")) }}
    - name: exchange
      containerPort: {{ .model.doorPort | int }}
    {{- end }}
  {{- include "concord.probes" . | nindent 2 }}
  resources:
    {{- toYaml (get .site.spec.resources .component) | nindent 4 }}
  securityContext:
    {{- include "concord.securityContext.container" . | nindent 4 }}
  volumeMounts:
    {{- include "concord.mounts" . | nindent 4 }}
{{- end -}}

{{/* Whether Redis keeps what it has; not empty if so. */}}
{{- define "concord.redis.appendOnly" -}}
{{- $wish := .site.spec.redis.appendOnly -}}
{{- if kindIs "bool" $wish -}}{{ ternary "yes" "" $wish }}
{{- else if eq .root.Values.layout "split" -}}yes
{{- end -}}
{{- end -}}

{{/* The site's Redis. `sidecar` makes it start before the pod's other container, and end after it. */}}
{{- define "concord.redis.container" -}}
{{- $v := .root.Values -}}
{{- $keeps := include "concord.redis.appendOnly" . -}}
{{- $memory := .site.spec.redis.maxMemory | int64 | toString -}}
- name: redis
  {{- if $v.redis.image }}
  image: {{ $v.redis.image | quote }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  command: [{{ $v.redis.command | quote }}]
  args:
    - --port
    - "6379"
    - --bind
    - "* -::*"
    - --requirepass
    - $(REDIS_PASSWORD)
    - --dir
    - /data
    - --maxmemory
    - {{ $memory | quote }}
    - --maxmemory-policy
    - noeviction
    - --save
    - ""
    - --appendonly
    - {{ ternary "yes" "no" (not (empty $keeps)) | quote }}
  {{- else }}
  {{- include "concord.image.fields" .root | nindent 2 }}
  args: [redis, --dir, /data, --bind, "*", --port, "6379", --max-memory, {{ $memory | quote }}, {{ ternary "--append-only" "--no-append-only" (not (empty $keeps)) }}]
  {{- end }}
  {{- if .sidecar }}
  restartPolicy: Always
  {{- end }}
  env:
    {{- include "concord.env.redisPassword" . | nindent 4 }}
  ports:
    - name: redis
      containerPort: 6379
  startupProbe:
    tcpSocket: {port: redis}
    periodSeconds: 1
    timeoutSeconds: 2
    failureThreshold: 60
  livenessProbe:
    tcpSocket: {port: redis}
    {{- toYaml $v.probes.liveness | nindent 4 }}
  readinessProbe:
    tcpSocket: {port: redis}
    {{- toYaml $v.probes.readiness | nindent 4 }}
  resources:
    {{- toYaml .site.spec.resources.redis | nindent 4 }}
  securityContext:
    {{- include "concord.securityContext.container" . | nindent 4 }}
  volumeMounts:
    - name: redis
      mountPath: /data
    - name: tmp
      mountPath: /tmp
{{- end -}}

{{/* A claim of a StatefulSet; it can never be changed, so its labels are those that stay. Arguments: root, site, component, name, size. */}}
{{- define "concord.claim" -}}
- metadata:
    name: {{ .name }}
    labels:
      {{- include "concord.site.selector" . | nindent 6 }}
  spec:
    accessModes:
      {{- toYaml .site.spec.persistence.accessModes | nindent 6 }}
    {{- with .site.spec.persistence.storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ .size }}
{{- end -}}

{{/* What the StatefulSets have in common. Arguments: root, site. One pod each, so nothing is gained by an order, and a
pod that cannot start does not keep a better one from taking its place. */}}
{{- define "concord.statefulSet.head" -}}
replicas: 1
podManagementPolicy: Parallel
updateStrategy:
  type: RollingUpdate
revisionHistoryLimit: {{ .root.Values.revisionHistoryLimit | int }}
persistentVolumeClaimRetentionPolicy:
  whenDeleted: {{ .site.spec.persistence.whenDeleted }}
  whenScaled: Retain
{{- end -}}
