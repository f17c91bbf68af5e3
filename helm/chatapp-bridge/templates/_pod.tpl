{{- /* The bridge's pod, of the StatefulSet and of the Deployment. */ -}}
{{- define "bridge.podTemplate" -}}
metadata:
  labels:
    {{- merge (deepCopy .Values.podLabels) (deepCopy .Values.commonLabels) (include "bridge.bridgeSelector" . | fromYaml) | toYaml | nindent 4 }}
  annotations:
    checksum/config: {{ include "bridge.configuration" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "bridge.serviceAccountName" . }}
  terminationGracePeriodSeconds: {{ include "bridge.graceSeconds" . }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- include "bridge.podBasics" . | nindent 2 }}
  {{- with .Values.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- include "bridge.spread" . | nindent 2 }}
  {{- with .Values.extraInitContainers }}
  initContainers: {{ toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: bridge
      {{- include "bridge.containerBasics" . | nindent 6 }}
      args: [serve, {{ include "bridge.configArguments" . }}]
      ports:
        - {name: callbacks, containerPort: 8080, protocol: TCP}
        - {name: admin, containerPort: 8081, protocol: TCP}
      startupProbe:
        httpGet: {path: /livez, port: admin}
        {{- toYaml .Values.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        {{- toYaml .Values.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        {{- toYaml .Values.probes.readiness | nindent 8 }}
      {{- if gt (int .Values.preStopSeconds) 0 }}
      # Until Services and ingresses have heard of the end, callbacks still come and are still answered.
      lifecycle:
        preStop:
          sleep: {seconds: {{ .Values.preStopSeconds }}}
      {{- end }}
      {{- with .Values.resources }}
      resources: {{ toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        {{- include "bridge.mounts" . | nindent 8 }}
        {{- if .Values.spool.enabled }}
        - name: spool
          mountPath: /var/lib/chatapp-bridge
        {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "bridge.volumes" (dict "root" . "config" (include "bridge.fullname" .)) | nindent 4 }}
{{- end }}

{{- define "bridge.spread" -}}
{{- $selector := dict "matchLabels" (include "bridge.bridgeSelector" . | fromYaml) -}}
{{- $spread := .Values.topologySpreadConstraints -}}
{{- if kindIs "invalid" $spread -}}
{{- $spread = list -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" -}}
{{- $spread = append $spread (dict "maxSkew" 1 "topologyKey" . "whenUnsatisfiable" "ScheduleAnyway") -}}
{{- end -}}
{{- end -}}
{{- with $spread -}}
topologySpreadConstraints:
{{- range . }}
  - {{- ternary . (merge (deepCopy .) (dict "labelSelector" $selector)) (hasKey . "labelSelector") | toYaml | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Of the bridges alone, without the pods of hooks and tests. */ -}}
{{- define "bridge.bridgeSelector" -}}
{{ include "bridge.selector" . }}
app.kubernetes.io/component: bridge
{{- end }}
