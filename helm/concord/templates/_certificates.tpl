{{/*
The job that makes certificates, as a hook before install, upgrade and rollback and on a schedule between them, so that
nothing ends because nobody upgrades. Both do the same: what is missing is made, what ends soon is made anew, the
authority is never changed. Arguments: root, model, name, component, annotations.
*/}}

{{- define "concord.certificates.authority" -}}
{{ .root.Values.tls.hook.caSecret | default (printf "%s-ca" .model.fullname) }}
{{- end -}}

{{- define "concord.certificates.metadata" -}}
name: {{ .name }}
labels:
  {{- include "concord.part.labels" . | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Who may do that, and where it may call. */}}
{{- define "concord.certificates.rights" -}}
{{- $hook := .annotations | default dict -}}
{{- $weighted := dict -}}
{{- range $part, $weight := dict "account" "-10" "role" "-9" "binding" "-8" "policy" "-7" -}}
  {{- $_ := set $weighted $part (merge (dict "annotations" (empty $hook | ternary dict (merge (dict "helm.sh/hook-weight" $weight) $hook))) $) -}}
{{- end -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "concord.certificates.metadata" $weighted.account | nindent 2 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "concord.certificates.metadata" $weighted.role | nindent 2 }}
rules:
  # To create cannot be limited to names.
  - apiGroups: [""]
    resources: [secrets]
    verbs: [create]
  - apiGroups: [""]
    resources: [secrets]
    resourceNames:
      - {{ include "concord.certificates.authority" . }}
      {{- range .model.sites }}
      - {{ include "concord.tls.secretName" (dict "root" $.root "model" $.model "site" .) }}
      {{- end }}
    verbs: [get, update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "concord.certificates.metadata" $weighted.binding | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .name }}
    namespace: {{ .root.Release.Namespace }}
{{- if .root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "concord.certificates.metadata" $weighted.policy | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "concord.part.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress: []
  egress:
    {{- include "concord.policy.dns" .root | nindent 4 }}
    {{- include "concord.policy.apiServer" .root | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "concord.certificates.job" -}}
backoffLimit: 4
activeDeadlineSeconds: {{ .root.Values.tls.hook.deadline | int }}
template:
  metadata:
    labels:
      {{- include "concord.part.selector" . | nindent 6 }}
      app.kubernetes.io/part-of: concord
  spec:
    restartPolicy: Never
    serviceAccountName: {{ .name }}
    automountServiceAccountToken: true
    enableServiceLinks: false
    securityContext:
      {{- include "concord.securityContext.pod" .root | nindent 6 }}
    {{- with .root.Values.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    containers:
      - name: certificates
        {{- include "concord.image.fields" .root | nindent 8 }}
        args:
          - certs
          - kubernetes
          - --federation
          - {{ .model.federation | quote }}
          - --namespace
          - {{ .root.Release.Namespace | quote }}
          - --ca-secret
          - {{ include "concord.certificates.authority" . | quote }}
          - --secret-prefix
          - {{ printf "%s-tls-" .model.fullname | quote }}
          - --label
          - app.kubernetes.io/part-of=concord
          - --label
          - app.kubernetes.io/instance={{ .root.Release.Name }}
          - --label
          - concord.dev/federation={{ .model.federation }}
          {{- range .model.sites }}
          - --site
          - {{ printf "%s=%s" .name (join "," .hosts) | quote }}
          {{- end }}
        resources:
          {{- toYaml .root.Values.tls.hook.resources | nindent 10 }}
        securityContext:
          {{- include "concord.securityContext.container" .root | nindent 10 }}
        volumeMounts:
          - name: tmp
            mountPath: /tmp
    volumes:
      - name: tmp
        emptyDir:
          sizeLimit: 64Mi
{{- end -}}
