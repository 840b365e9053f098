{{- define "trustfleet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "trustfleet.fullname" -}}
{{- $name := include "trustfleet.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels by which the pods of this release are found. They never change in the life of a release. */}}
{{- define "trustfleet.selector" -}}
app.kubernetes.io/name: {{ include "trustfleet.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "trustfleet.labels" -}}
{{ include "trustfleet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: trustfleet
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "trustfleet.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "trustfleet.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "trustfleet.image" -}}
{{- $repository := required "image.repository must name the controller's image" .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* The parts of a pod that the controller and its migration have in common. */}}
{{- define "trustfleet.pod" -}}
automountServiceAccountToken: false
# The names of services in the cluster are no configuration.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.runAsId }}
  runAsGroup: {{ .Values.runAsId }}
  fsGroup: {{ .Values.runAsId }}
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.sidecars }}
initContainers:
  {{- range . }}
  - {{- toYaml (merge (dict "restartPolicy" "Always") .) | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "trustfleet.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* The controller's TOML file. Database and broker URLs come from the environment, over this file. */}}
{{- define "trustfleet.config" -}}
{{- $config := .Values.config -}}
{{- if .Values.firstToken.existingSecret }}
first_token_file = "/etc/trustfleet/first-token/platform-token"

{{ end -}}
[http]
listen = "0.0.0.0:8080"
workers = {{ int $config.http.workers }}
max_connections = {{ int $config.http.max_connections }}
request_timeout_s = {{ int $config.http.request_timeout_s }}
rate_limit_per_s = {{ int $config.http.rate_limit_per_s }}
rate_limit_burst = {{ int $config.http.rate_limit_burst }}
failed_limit_per_min = {{ int $config.http.failed_limit_per_min }}
{{- if .Values.http.tlsSecret }}
tls_cert_file = "/etc/trustfleet/api-tls/tls.crt"
tls_key_file = "/etc/trustfleet/api-tls/tls.key"
{{- else }}
# TLS ends at the Ingress, or at whatever stands before the Service.
insecure_plaintext = true
{{- end }}

[database]
max_connections = {{ int $config.database.max_connections }}
{{- if .Values.database.tlsCaConfigMap }}
tls_ca_file = "/etc/trustfleet/database-tls/ca.crt"
{{- end }}
insecure_plaintext = {{ $config.database.insecure_plaintext }}

[broker]
agent_url = {{ required "config.broker.agent_url must be the broker's URL as agents are told it" $config.broker.agent_url | toJson }}
token_lifetime_s = {{ int $config.broker.token_lifetime_s }}
{{- if .Values.broker.tlsCaConfigMap }}
tls_ca_file = "/etc/trustfleet/broker-tls/ca.crt"
{{- end }}
insecure_plaintext = {{ $config.broker.insecure_plaintext }}

[keys]
signing_key_file = "/etc/trustfleet/keys/controller-signing.pem"
broker_token_key_file = "/etc/trustfleet/keys/broker-token.pem"
key_encryption_key_file = "/etc/trustfleet/keys/kek.key"
{{- with .Values.keys.furtherKeyEncryptionKeys }}
further_key_encryption_key_files = [
{{- range $i, $key := . }}
  "/etc/trustfleet/keys/kek-further-{{ $i }}.key",
{{- end }}
]
{{- end }}

[outbox]
claim_s = {{ int $config.outbox.claim_s }}
permit_s = {{ int $config.outbox.permit_s }}

[ca_budget]
rate_per_s = {{ float64 $config.ca_budget.rate_per_s }}
burst = {{ int $config.ca_budget.burst }}
concurrency = {{ int $config.ca_budget.concurrency }}
permit_s = {{ int $config.ca_budget.permit_s }}
respread_s = {{ int $config.ca_budget.respread_s }}

[agents]
messages_per_s = {{ int $config.agents.messages_per_s }}

[actors]
threads = {{ int $config.actors.threads }}
mailbox = {{ int $config.actors.mailbox }}
idle_s = {{ int $config.actors.idle_s }}

[tenants]
delete_grace_s = {{ int $config.tenants.delete_grace_s }}

[metrics]
tenants_max = {{ int $config.metrics.tenants_max }}

[audit]
checkpoint_s = {{ int $config.audit.checkpoint_s }}
retention_days = {{ int $config.audit.retention_days }}

[retention]
days_max = {{ int $config.retention.days_max }}

[log]
format = {{ $config.log.format | toJson }}
filter = {{ $config.log.filter | toJson }}
{{- range $issuer := $config.oidc }}

[[oidc]]
{{- range $key := list "issuer" "audience" "algorithms" "tls_ca_file" "insecure_plaintext" }}
{{- if hasKey $issuer $key }}
{{ $key }} = {{ get $issuer $key | toJson }}
{{- end }}
{{- end }}
{{- range $key := list "clock_skew_s" "keys_max_age_s" }}
{{- if hasKey $issuer $key }}
{{ $key }} = {{ int (get $issuer $key) }}
{{- end }}
{{- end }}
{{- range $issuer.grants }}

[[oidc.grants]]
claim = {{ .claim | toJson }}
value = {{ .value | toJson }}
role = {{ .role | toJson }}
{{- if .tenant }}
tenant = {{ .tenant | toJson }}
{{- end }}
{{- end }}
{{- end }}
{{- with $config.traces }}
{{- if .endpoint }}

[traces]
endpoint = {{ .endpoint | toJson }}
sample_ratio = {{ .sample_ratio }}
insecure_plaintext = {{ .insecure_plaintext }}
{{- if $.Values.traces.headersSecret }}
headers_file = "/etc/trustfleet/traces-headers/headers"
{{- end }}
{{- if $.Values.traces.tlsCaConfigMap }}
tls_ca_file = "/etc/trustfleet/traces-tls/ca.crt"
{{- end }}
{{- end }}
{{- end }}
{{ end }}
