{{- define "bridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* At most 40 characters: what is added for objects and pods has to fit into 63. */ -}}
{{- define "bridge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "bridge.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "bridge.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "bridge.selector" -}}
app.kubernetes.io/name: {{ include "bridge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Takes a dict of root and component. */ -}}
{{- define "bridge.labels" -}}
{{ include "bridge.selector" .root }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "bridge.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- define "bridge.serviceAccountName" -}}
{{- with .Values.serviceAccount -}}
{{- if .create }}{{ default (include "bridge.fullname" $) .name }}{{ else }}{{ default "default" .name }}{{ end }}
{{- end }}
{{- end }}

{{- /* A key of the configuration as it will be in force: takes a list of root, section, key and bridge.toml's default. */ -}}
{{- define "bridge.setting" -}}
{{- $section := dig (index . 1) dict (index . 0).Values.config -}}
{{- if hasKey $section (index . 2) }}{{ get $section (index . 2) | toJson }}{{ else }}{{ index . 3 | toJson }}{{ end }}
{{- end }}

{{- /* The path on the public port by which a load balancer asks whether this bridge takes callbacks; nothing where there is none. */ -}}
{{- define "bridge.healthPath" -}}
{{- include "bridge.setting" (list . "server" "health_path" "/healthz") | trimAll "\"" }}
{{- end }}

{{- /* Annotations of the Ingress: what its class needs, below the user's own. ingress-nginx and F5's controller both have the class
       nginx, AWS and Alibaba Cloud both alb; an annotation of the other one is ignored.
       nginx takes twice limits.body_bytes, so that the bridge itself refuses, and counts, what is somewhat too large. It buffers that in
       memory: when it writes a body to a file, its error log has a warning with the path, and so the secret. */ -}}
{{- define "bridge.ingressAnnotations" -}}
{{- $class := .Values.ingress.className | default "" -}}
{{- $body := include "bridge.bodyBytes" . | int64 | mul 2 | toString -}}
{{- $health := include "bridge.healthPath" . -}}
{{- $needed := dict -}}
{{- if contains "nginx" $class -}}
{{- $needed = dict
      "nginx.ingress.kubernetes.io/proxy-body-size" $body
      "nginx.ingress.kubernetes.io/client-body-buffer-size" $body
      "nginx.ingress.kubernetes.io/proxy-connect-timeout" "1"
      "nginx.ingress.kubernetes.io/proxy-send-timeout" "10"
      "nginx.ingress.kubernetes.io/proxy-read-timeout" "10"
      "nginx.ingress.kubernetes.io/enable-access-log" "false"
      "nginx.org/client-max-body-size" $body
      "nginx.org/client-body-buffer-size" $body
      "nginx.org/proxy-connect-timeout" "1s"
      "nginx.org/proxy-send-timeout" "10s"
      "nginx.org/proxy-read-timeout" "10s" -}}
{{- else if and $health (regexMatch "(^|[-.])alb([-.]|$)" $class) -}}
{{- $needed = dict
      "alb.ingress.kubernetes.io/healthcheck-enabled" "true"
      "alb.ingress.kubernetes.io/healthcheck-method" "GET"
      "alb.ingress.kubernetes.io/healthcheck-path" $health -}}
{{- end -}}
{{- merge (deepCopy .Values.ingress.annotations) $needed | toYaml }}
{{- end }}

{{- define "bridge.bodyBytes" -}}
{{- include "bridge.setting" (list . "limits" "body_bytes" 8388608) | float64 | int64 }}
{{- end }}

{{- /* The options of a Service that are set. Takes a dict of values and keys. */ -}}
{{- define "bridge.serviceOptions" -}}
{{- $set := dict -}}
{{- range $key := .keys -}}
{{- with get $.values $key -}}
{{- $set = merge $set (dict $key .) -}}
{{- end -}}
{{- end -}}
{{- if $set }}{{ toYaml $set }}{{ end }}
{{- end }}

{{- define "bridge.claimLabels" -}}
{{- merge (include "bridge.bridgeSelector" . | fromYaml) (deepCopy .Values.spool.labels) | toYaml }}
{{- end }}

{{- /* How Prometheus shows the token of the admin port, where there is one. */ -}}
{{- define "bridge.scrapeAuthorization" -}}
{{- with .Values.metrics.tokenSecret | default (dig "server" "admin_token_file" dict .Values.secrets) -}}
authorization:
  type: Bearer
  credentials: {name: {{ .name }}, key: {{ .key | quote }}}
{{- end }}
{{- end }}

{{- /* preStop, then what is in flight is answered, then the rest is journalled and everything closed; a few seconds for the kubelet. */ -}}
{{- define "bridge.stopSeconds" -}}
{{- $answered := include "bridge.setting" (list . "delivery" "ack_deadline_seconds" 2.0) | float64 -}}
{{- $stopped := include "bridge.setting" (list . "server" "shutdown_seconds" 10.0) | float64 -}}
{{- addf (float64 .Values.preStopSeconds) $answered $stopped | ceil }}
{{- end }}

{{- define "bridge.graceSeconds" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add (include "bridge.stopSeconds" . | float64 | int64) 3 }}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds }}
{{- end }}
{{- end }}

{{- /* A quantity such as 12Gi, in bytes; nothing where it is written in another way. */ -}}
{{- define "bridge.bytes" -}}
{{- $number := regexFind "^[0-9.]+" (toString .) -}}
{{- $powers := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := trimPrefix $number (toString .) -}}
{{- if and $number (hasKey $powers $unit) }}{{ mulf (float64 $number) (get $powers $unit | float64) | int64 }}{{ end }}
{{- end }}

{{- /* bridge.toml: what the values say, over it what the chart decides. JSON's texts, numbers and lists are TOML's. */ -}}
{{- define "bridge.toml" -}}
{{- $own := dict "spool" (dict "enabled" .Values.spool.enabled "directory" "/var/lib/chatapp-bridge/spool") -}}
{{- if .Values.topics -}}
{{- $_ := set $own "topics" (dict "file" "/etc/chatapp-bridge/config/topics.toml") -}}
{{- end -}}
{{- if .Values.errorCodes -}}
{{- $_ := set $own "events" (dict "error_codes" "/etc/chatapp-bridge/config/error_codes.toml") -}}
{{- end -}}
{{- range $section, $keys := .Values.secrets -}}
{{- range $key, $_ := $keys -}}
{{- $path := printf "/etc/chatapp-bridge/secrets/%s.%s" $section $key -}}
{{- $own = mergeOverwrite $own (dict $section (dict $key $path)) -}}
{{- end -}}
{{- end -}}
{{- range $section, $keys := mergeOverwrite (deepCopy .Values.config) $own -}}
[{{ $section }}]
{{ range $key, $value := $keys -}}
{{- if not (kindIs "invalid" $value) -}}
{{ $key }} = {{ toJson $value }}
{{ end -}}
{{- end }}
{{ end -}}
{{- end }}

{{- /* The content of the ConfigMap: bridge.toml, topics.toml where topics are declared otherwise, and error_codes.toml where codes are. */ -}}
{{- define "bridge.configuration" -}}
bridge.toml: |
  {{- include "bridge.toml" . | nindent 2 }}
{{- with .Values.topics }}
topics.toml: |
  {{- range $topic, $keys := . }}
  [{{ $topic }}]
  {{- range $key, $value := omit $keys "config" }}
  {{ $key }} = {{ toJson $value }}
  {{- end }}
  {{- with $keys.config }}
  [{{ $topic }}.config]
  {{- range $key, $value := . }}
  {{ quote $key }} = {{ toJson $value }}
  {{- end }}
  {{- end }}
  {{- end }}
{{- end }}
{{- with .Values.errorCodes }}
error_codes.toml: |
  {{- range $code, $entry := . }}
  [codes.{{ toJson $code }}]
  {{- range $key, $value := $entry }}
  {{ $key }} = {{ toJson $value }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Volumes of every pod that runs the image. Takes a dict of root and config, the ConfigMap's name. */ -}}
{{- define "bridge.volumes" -}}
- name: config
  configMap:
    name: {{ .config }}
{{- if .root.Values.secrets }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $section, $keys := .root.Values.secrets }}
      {{- range $key, $secret := $keys }}
      - secret:
          name: {{ $secret.name }}
          items: [{key: {{ $secret.key | quote }}, path: {{ printf "%s.%s" $section $key }}}]
      {{- end }}
      {{- end }}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Mounts of every container that runs the image. */ -}}
{{- define "bridge.mounts" -}}
- name: config
  mountPath: /etc/chatapp-bridge/config
  readOnly: true
{{- if .Values.secrets }}
- name: secrets
  mountPath: /etc/chatapp-bridge/secrets
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "bridge.configArguments" -}}
--config, /etc/chatapp-bridge/config/bridge.toml
{{- end }}

{{- /* What all pods have in common. */ -}}
{{- define "bridge.podBasics" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* What all containers of the image have in common. */ -}}
{{- define "bridge.containerBasics" -}}
image: {{ include "bridge.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.securityContext }}
securityContext: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnv }}
env: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* A pod that runs one command to its end. Takes a dict of root, component, config, arguments, and further mounts and volumes. */ -}}
{{- define "bridge.commandPod" -}}
restartPolicy: Never
{{- if eq .component "probe" "drain" }}
serviceAccountName: {{ include "bridge.serviceAccountName" .root }}
{{- end }}
{{ include "bridge.podBasics" .root }}
containers:
  - name: {{ .component }}
    {{- include "bridge.containerBasics" .root | nindent 4 }}
    args: [{{ .arguments }}, {{ include "bridge.configArguments" . }}]
    resources:
      requests: {cpu: 50m, memory: 128Mi}
      limits: {memory: 512Mi}
    volumeMounts:
      {{- include "bridge.mounts" .root | nindent 6 }}
      {{- with .mounts }}
      {{- . | nindent 6 }}
      {{- end }}
volumes:
  {{- include "bridge.volumes" (dict "root" .root "config" .config) | nindent 2 }}
  {{- with .volumes }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* Egress rules for whatever talks to Kafka and the registry: DNS, brokers, what gives tokens for them, registry. */ -}}
{{- define "bridge.egress" -}}
- ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
- ports:
    {{- range include "bridge.kafkaPorts" . | fromJsonArray }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.kafkaTo }}
  to: {{ toYaml . | nindent 4 }}
  {{- end }}
{{- range concat (include "bridge.tokenPorts" . | fromJsonArray) (include "bridge.registryPorts" . | fromJsonArray) | uniq }}
- ports: [{port: {{ . }}, protocol: TCP}]
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "bridge.kafkaPorts" -}}
{{- $ports := .Values.networkPolicy.kafkaPorts -}}
{{- if not $ports -}}
{{- range dig "kafka" "bootstrap_servers" list .Values.config }}{{ $ports = append $ports (regexFind "[0-9]+$" . | int) }}{{ end -}}
{{- end -}}
{{- $ports | uniq | toJson }}
{{- end }}

{{- define "bridge.registryPorts" -}}
{{- $ports := list -}}
{{- $url := dig "registry" "url" "" .Values.config -}}
{{- range splitList "," (ternary (dig "registry" "proxy" "" .Values.config) $url (ne "" (dig "registry" "proxy" "" .Values.config))) | compact -}}
{{- $ports = append $ports (include "bridge.portOf" . | int) -}}
{{- end -}}
{{- $ports | uniq | toJson }}
{{- end }}

{{- /* For AWS: STS, and the agent of EKS Pod Identity. */ -}}
{{- define "bridge.tokenPorts" -}}
{{- $method := dig "kafka" "sasl_oauth" "file" .Values.config -}}
{{- $endpoint := dig "kafka" "sasl_oauth_token_endpoint" "" .Values.config -}}
{{- if eq $method "aws_msk_iam" -}}[80, 443]
{{- else if and (eq $method "oidc") $endpoint -}}{{ list (include "bridge.portOf" $endpoint | int) | toJson }}
{{- else -}}[]
{{- end -}}
{{- end }}

{{- define "bridge.portOf" -}}
{{- default (ternary 443 80 (hasPrefix "https:" (trim .))) (regexFind ":[0-9]+$" (urlParse (trim .)).host | trimPrefix ":") -}}
{{- end }}
