{{- define "trustfleet-agent.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "trustfleet-agent.fullname" -}}
{{- $name := include "trustfleet-agent.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels by which the pods of this release are found. They never change in the life of a release. */}}
{{- define "trustfleet-agent.selector" -}}
app.kubernetes.io/name: {{ include "trustfleet-agent.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "trustfleet-agent.labels" -}}
{{ include "trustfleet-agent.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: trustfleet
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "trustfleet-agent.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "trustfleet-agent.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "trustfleet-agent.image" -}}
{{- $repository := required "image.repository must name the agent's image" .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* The agent's TOML file, the same on every node: the name comes from the environment. */}}
{{- define "trustfleet-agent.config" -}}
{{- $config := .Values.config -}}
controller_url = {{ required "config.controller_url must be the controller's base URL" $config.controller_url | toJson }}
{{- /* Below the mount: kubelet makes a folder that all may read, the agent insists on one of its own. */}}
state_dir = "/var/lib/trustfleet-agent/state"
join_token_file = "/etc/trustfleet-agent/join/token"
{{- if .Values.tlsCa.existingConfigMap }}
tls_ca_file = "/etc/trustfleet-agent/tls/ca.crt"
{{- end }}
insecure_plaintext = {{ $config.insecure_plaintext }}
parallel_exchanges = {{ int $config.parallel_exchanges }}
hello_s = {{ int $config.hello_s }}
reconnect_within_s = {{ int $config.reconnect_within_s }}
log_format = {{ $config.log_format | toJson }}
{{- with $config.accept }}
{{- if or .ca_urls .anchor_fingerprints $.Values.acceptAnchors.existingConfigMap }}

[accept]
{{- with .ca_urls }}
ca_urls = {{ toJson . }}
{{- end }}
{{- with .anchor_fingerprints }}
anchor_fingerprints = {{ toJson . }}
{{- end }}
{{- if $.Values.acceptAnchors.existingConfigMap }}
anchor_files = ["/etc/trustfleet-agent/accept/anchors.pem"]
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $service := $config.services }}

[services.{{ toJson $name }}]
{{- range $key, $value := omit $service "probe" "exports" }}
{{ $key }} = {{ if kindIs "float64" $value }}{{ int $value }}{{ else }}{{ toJson $value }}{{ end }}
{{- end }}
{{- with $service.probe }}
[services.{{ toJson $name }}.probe]
{{- range $key, $value := . }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- range $service.exports }}
[[services.{{ toJson $name }}.exports]]
{{- range $key, $value := . }}
{{ $key }} = {{ toJson $value }}
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
headers_file = "/etc/trustfleet-agent/traces-headers/headers"
{{- end }}
{{- if $.Values.traces.tlsCaConfigMap }}
tls_ca_file = "/etc/trustfleet-agent/traces-tls/ca.crt"
{{- end }}
{{- end }}
{{- end }}
{{- end }}
