{{- /* Values that contradict each other, or the bridge: each a sentence that names them and says what to do. All are told at once. What a
       single value may be is in values.schema.json. */ -}}
{{- define "bridge.refusals" -}}
{{- $refusals := concat
      (include "bridge.refusals.config" . | fromJsonArray)
      (include "bridge.refusals.kafka" . | fromJsonArray)
      (include "bridge.refusals.times" . | fromJsonArray)
      (include "bridge.refusals.sizes" . | fromJsonArray)
      (include "bridge.refusals.volumes" . | fromJsonArray)
      (include "bridge.refusals.replicas" . | fromJsonArray)
      (include "bridge.refusals.budget" . | fromJsonArray)
      (include "bridge.refusals.routes" . | fromJsonArray)
      (include "bridge.refusals.addresses" . | fromJsonArray)
      (include "bridge.refusals.services" . | fromJsonArray)
      (include "bridge.refusals.jobs" . | fromJsonArray)
      (include "bridge.refusals.monitoring" . | fromJsonArray) -}}
{{- if $refusals }}
{{- fail (printf "\n\nthese values can't be used:\n  %s\n" (join "\n  " $refusals)) }}
{{- end }}
{{- end }}

{{- define "bridge.refusals.config" -}}
{{- $found := list -}}
{{- $secrets := list "access.path_secrets" "kafka.sasl_plain_password" "kafka.sasl_oauth_client_secret" "kafka.ssl_password" "registry.password" "registry.token" "registry.ssl_password" -}}
{{- $chart := list "server.port" "server.admin_port" "spool.enabled" "spool.directory" "topics.file" "events.error_codes" -}}
{{- range $section, $keys := .Values.config -}}
{{- range $key, $value := $keys -}}
{{- $name := printf "%s.%s" $section $key -}}
{{- if has $name $secrets -}}
{{- $found = append $found (printf "config.%s: a secret would stand in a ConfigMap for all to read; put it into a Secret of your own and name that under secrets.%s_file" $name $name) -}}
{{- else if has $name $chart -}}
{{- $found = append $found (printf "config.%s: the chart sets it; remove it%s" $name (get (dict "spool.enabled" " and use spool.enabled" "topics.file" " and use topics" "events.error_codes" " and use errorCodes") $name)) -}}
{{- else if hasKey (dig $section dict $.Values.secrets) $key -}}
{{- $found = append $found (printf "config.%s: secrets.%s mounts a file for the same key; keep one of them" $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $file := or (dig "access" "path_secrets_file" "" .Values.secrets) (dig "access" "path_secrets_file" "" .Values.config) -}}
{{- $open := dig "access" "allow_unauthenticated" false .Values.config -}}
{{- if not (or $file $open) -}}
{{- $found = append $found "secrets.access.path_secrets_file: names no Secret, so anyone could publish; make one (kubectl create secret generic NAME --from-literal=path-secrets=$(openssl rand -hex 24)) and give {name: NAME, key: path-secrets}, or config.access.allow_unauthenticated=true to run open" -}}
{{- else if and $file $open -}}
{{- $found = append $found "config.access.allow_unauthenticated: true contradicts the secrets that are set; remove one or the other" -}}
{{- end -}}
{{- if regexMatch "//[^/]*@" (dig "registry" "url" "" .Values.config) -}}
{{- $found = append $found "config.registry.url: has a password in it, which would stand in a ConfigMap for all to read; give config.registry.username and secrets.registry.password_file" -}}
{{- end -}}
{{- if regexMatch "//[^/]*@" (dig "registry" "proxy" "" .Values.config) -}}
{{- $found = append $found "config.registry.proxy: has a password in it, which would stand in a ConfigMap for all to read; give it by extraEnv: BRIDGE_REGISTRY__PROXY with valueFrom a Secret" -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if and (regexMatch "^BRIDGE_[A-Z]+__" .name) (not (hasKey . "valueFrom")) -}}
{{- $found = append $found (printf "extraEnv: %s would overrule what the chart reckons with; put it under config, or under secrets where it is one" .name) -}}
{{- end -}}
{{- end -}}
{{- $found | toJson }}
{{- end }}

{{- define "bridge.refusals.kafka" -}}
{{- $found := list -}}
{{- if not (dig "kafka" "bootstrap_servers" list .Values.config) -}}
{{- $found = append $found "config.kafka.bootstrap_servers: names no broker; give at least one host:port" -}}
{{- end -}}
{{- range dig "kafka" "bootstrap_servers" list .Values.config -}}
{{- if not (regexMatch "^[^,]+:[0-9]+$" .) -}}
{{- $found = append $found (printf "config.kafka.bootstrap_servers: %q is no host:port; give each broker as an entry of its own, with its port" .) -}}
{{- end -}}
{{- end -}}
{{- $protocol := dig "kafka" "security_protocol" "PLAINTEXT" .Values.config -}}
{{- $sasl := hasPrefix "SASL" $protocol -}}
{{- $oauth := and $sasl (eq "OAUTHBEARER" (dig "kafka" "sasl_mechanism" "SCRAM-SHA-512" .Values.config)) -}}
{{- $tokens := get (dict "file" "sasl_oauth_token_file" "oidc" "sasl_oauth_client_secret_file") (dig "kafka" "sasl_oauth" "file" .Values.config) -}}
{{- $wanted := ternary (ternary $tokens "sasl_plain_password_file" $oauth) "" $sasl -}}
{{- range $key := list "sasl_oauth_token_file" "sasl_oauth_client_secret_file" "sasl_plain_password_file" -}}
{{- $given := or (dig "kafka" $key "" $.Values.secrets) (dig "kafka" $key "" $.Values.config) -}}
{{- if and $given (ne $key $wanted) -}}
{{- $found = append $found (printf "secrets.kafka.%s: is not used with config.kafka.security_protocol %s%s; remove it, or choose what uses it" $key $protocol (ternary " and this sasl_mechanism and sasl_oauth" "" $sasl)) -}}
{{- else if and (eq $key $wanted) (not $given) (not $.Values.extraEnv) (not $.Values.extraEnvFrom) -}}
{{- $found = append $found (printf "secrets.kafka.%s: names no Secret, and config.kafka.security_protocol %s needs it; give {name: …, key: …} of one that exists" $key $protocol) -}}
{{- end -}}
{{- end -}}
{{- if not (contains "SSL" $protocol) -}}
{{- range $key, $_ := dig "kafka" dict .Values.secrets -}}
{{- if hasPrefix "ssl_" $key -}}
{{- $found = append $found (printf "secrets.kafka.%s: is not used with config.kafka.security_protocol %s; take SSL or SASL_SSL, or remove it" $key $protocol) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found | toJson }}
{{- end }}

{{- define "bridge.refusals.times" -}}
{{- $found := list -}}
{{- $answered := include "bridge.setting" (list . "delivery" "ack_deadline_seconds" 2.0) | float64 -}}
{{- $stopped := include "bridge.setting" (list . "server" "shutdown_seconds" 10.0) | float64 -}}
{{- if lt (mulf $stopped 0.3) $answered -}}
{{- $found = append $found (printf "config.server.shutdown_seconds: %v is too short: three tenths of it are for answering what is in flight, which may take config.delivery.ack_deadline_seconds (%v); raise it to %v" $stopped $answered (divf $answered 0.3 | ceil)) -}}
{{- end -}}
{{- $least := include "bridge.stopSeconds" . | float64 -}}
{{- with .Values.terminationGracePeriodSeconds -}}
{{- if le (float64 .) $least -}}
{{- $found = append $found (printf "terminationGracePeriodSeconds: %v is not above preStopSeconds (%v) + config.delivery.ack_deadline_seconds (%v) + config.server.shutdown_seconds (%v), so that a bridge would be killed while it saves what it promised; raise it above %v, or leave it out to have it computed" . $.Values.preStopSeconds $answered $stopped $least) -}}
{{- end -}}
{{- end -}}
{{- $found | toJson }}
{{- end }}

{{- define "bridge.refusals.sizes" -}}
{{- $found := list -}}
{{- if .Values.spool.enabled -}}
{{- $max := include "bridge.setting" (list . "spool" "max_bytes" 10737418240) | float64 | int64 -}}
{{- $free := include "bridge.setting" (list . "spool" "min_free_bytes" 268435456) | float64 | int64 -}}
{{- $size := include "bridge.bytes" .Values.spool.size -}}
{{- if and $size (lt (int64 $size) (add $max $free)) -}}
{{- $found = append $found (printf "spool.size: %s can't hold config.spool.max_bytes (%d) and config.spool.min_free_bytes (%d); raise it, or lower config.spool.max_bytes" .Values.spool.size $max $free) -}}
{{- end -}}
{{- end -}}
{{- $bytes := add (include "bridge.setting" (list . "delivery" "memory_bytes" 134217728) | float64 | int64) (include "bridge.setting" (list . "limits" "in_flight_bytes" 134217728) | float64 | int64) -}}
{{- $limit := include "bridge.bytes" (dig "limits" "memory" "" .Values.resources) -}}
{{- if and $limit (lt (int64 $limit) (mul 2 $bytes)) -}}
{{- $found = append $found (printf "resources.limits.memory: %v is less than twice config.delivery.memory_bytes and config.limits.in_flight_bytes (together %d), so that a bridge under load would be killed; raise it, or lower those" .Values.resources.limits.memory $bytes) -}}
{{- end -}}
{{- $found | toJson }}
{{- end }}

{{- /* What Kubernetes lets nobody change in a StatefulSet, where one is there: told before a hook has run, and with the way out. */ -}}
{{- define "bridge.refusals.volumes" -}}
{{- $found := list -}}
{{- $name := include "bridge.fullname" . -}}
{{- $there := lookup "apps/v1" "StatefulSet" .Release.Namespace $name -}}
{{- if and .Values.spool.enabled $there -}}
{{- $template := first $there.spec.volumeClaimTemplates -}}
{{- $claim := $template.spec -}}
{{- $has := dict "size" $claim.resources.requests.storage "accessModes" $claim.accessModes "storageClassName" (get $claim "storageClassName") -}}
{{- range $key, $old := $has -}}
{{- $new := get $.Values.spool $key -}}
{{- $same := or (eq (toJson $new) (toJson $old)) (and (eq $key "size") (eq (include "bridge.bytes" $new) (include "bridge.bytes" $old))) -}}
{{- if not (or $same (and (empty $new) (empty $old))) -}}
{{- $found = append $found (printf "spool.%s: %v is not that of StatefulSet %s, %v, and Kubernetes never changes it; see to the claims, then kubectl --namespace %s delete statefulset %s --cascade=orphan, which leaves the pods, and upgrade again (docs/operations.md, A larger volume)" $key (toJson $new | trimAll "\"") $name (toJson $old | trimAll "\"" | default "null") $.Release.Namespace $name) -}}
{{- end -}}
{{- end -}}
{{- $now := dict "labels" (include "bridge.claimLabels" . | fromYaml) "annotations" .Values.spool.annotations -}}
{{- range $key, $new := $now -}}
{{- $old := dig "metadata" $key dict $template -}}
{{- if ne (toJson ($new | default dict)) (toJson $old) -}}
{{- $found = append $found (printf "spool.%s: the claims of StatefulSet %s have other %s, and Kubernetes never changes them; set the same ones on the claims there are (kubectl --namespace %s label or annotate pvc), then kubectl --namespace %s delete statefulset %s --cascade=orphan, which leaves the pods, and upgrade again" $key $name $key $.Release.Namespace $.Release.Namespace $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found | toJson }}
{{- end }}

{{- define "bridge.refusals.replicas" -}}
{{- $found := list -}}
{{- if eq .Values.spool.persistentVolumeClaimRetentionPolicy.whenScaled "Delete" -}}
{{- $found = append $found "spool.persistentVolumeClaimRetentionPolicy.whenScaled: Delete would remove a volume with the reports that wait on it, which were answered 200; keep Retain, and remove a claim by hand when `spool show` calls it empty (docs/operations.md, Scaling down)" -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if .enabled -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- $found = append $found (printf "autoscaling.minReplicas: %v is more than autoscaling.maxReplicas (%v); lower it" .minReplicas .maxReplicas) -}}
{{- end -}}
{{- if and $.Values.spool.enabled (not $.Values.metrics.prometheusRule.enabled) -}}
{{- $found = append $found "autoscaling.enabled: with the spool on, scaling down during an outage leaves reports on a volume that nobody mounts, and nobody would be told; turn on metrics.prometheusRule.enabled, whose alert does tell, or spool.enabled=false, or keep a fixed number of replicas" -}}
{{- end -}}
{{- if not (dig "requests" "cpu" "" $.Values.resources) -}}
{{- $found = append $found "autoscaling.enabled: it measures CPU in percent of resources.requests.cpu, which is not set; set it" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range .Values.spool.drain -}}
{{- if not $.Values.spool.enabled -}}
{{- $found = append $found (printf "spool.drain: %v: with spool.enabled=false there are no volumes to drain; drain them before it is turned off" .) -}}
{{- else if lt (int .) (int (ternary $.Values.autoscaling.maxReplicas $.Values.replicas $.Values.autoscaling.enabled)) -}}
{{- $found = append $found (printf "spool.drain: %v is the ordinal of a replica that runs, or may, and that publishes its spool itself; name those of replicas that are no more" .) -}}
{{- end -}}
{{- end -}}
{{- $found | toJson }}
{{- end }}

{{- /* A budget under which no node could ever be drained. Kubernetes rounds percentages up. */ -}}
{{- define "bridge.refusals.budget" -}}
{{- $found := list -}}
{{- $least := ternary .Values.autoscaling.minReplicas .Values.replicas .Values.autoscaling.enabled -}}
{{- with .Values.podDisruptionBudget -}}
{{- $key := ternary "maxUnavailable" "minAvailable" (kindIs "invalid" .minAvailable) -}}
{{- $given := get . $key | default 0 | toString -}}
{{- $count := trimSuffix "%" $given | float64 -}}
{{- if hasSuffix "%" $given -}}
{{- $count = divf (mulf $count (float64 $least)) 100 | ceil -}}
{{- end -}}
{{- if and .enabled $least (eq $key "minAvailable") (ge $count (float64 $least)) -}}
{{- $found = append $found (printf "podDisruptionBudget.minAvailable: %v of %v bridges may never be away, so that no node could be drained; lower it, or use maxUnavailable" $given $least) -}}
{{- else if and .enabled $least (eq $key "maxUnavailable") (le $count 0.0) -}}
{{- $found = append $found (printf "podDisruptionBudget.maxUnavailable: %v lets no node be drained; raise it" $given) -}}
{{- end -}}
{{- end -}}
{{- $found | toJson }}
{{- end }}

{{- define "bridge.refusals.routes" -}}
{{- $found := list -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- $found = append $found "ingress.hosts: is empty, so that the ingress would take the callbacks of every host; name at least one" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- $found = append $found "httpRoute.parentRefs: is empty, so that no Gateway would route to it; name at least one" -}}
{{- end -}}
{{- with .Values.serviceAccount -}}
{{- if and (not .create) .annotations -}}
{{- $found = append $found "serviceAccount.annotations: are for an account that the chart makes, and serviceAccount.create is false; remove one or the other" -}}
{{- end -}}
{{- end -}}
{{- $found | toJson }}
{{- end }}

{{- /* Where the bridge listens. Probes and Services come from outside of the pod, and an IPv6 Service needs an IPv6 socket. */ -}}
{{- define "bridge.refusals.addresses" -}}
{{- $found := list -}}
{{- range $key, $service := dict "host" "service" "admin_host" "adminService" -}}
{{- $host := dig "server" $key "" $.Values.config -}}
{{- if or (eq $host "localhost" "::1") (hasPrefix "127." $host) -}}
{{- $found = append $found (printf "config.server.%s: %s is the pod's own loopback, where neither probes nor Services come; give 0.0.0.0 or ::, or remove it" $key $host) -}}
{{- else if and (regexMatch "^[0-9.]+$" $host) (has "IPv6" (get $.Values $service).ipFamilies) -}}
{{- $found = append $found (printf "config.server.%s: %s takes IPv4 only, and %s.ipFamilies has IPv6; give ::, or remove one of them" $key $host $service) -}}
{{- end -}}
{{- end -}}
{{- $found | toJson }}
{{- end }}

{{- define "bridge.refusals.services" -}}
{{- $found := list -}}
{{- range $name := list "service" "adminService" -}}
{{- $service := get $.Values $name -}}
{{- if and (gt (len $service.ipFamilies) 1) (has $service.ipFamilyPolicy (list nil "SingleStack")) -}}
{{- $found = append $found (printf "%s.ipFamilies: two families need %s.ipFamilyPolicy PreferDualStack or RequireDualStack; set it, or name one family" $name $name) -}}
{{- end -}}
{{- end -}}
{{- with .Values.service -}}
{{- if and .externalTrafficPolicy (eq .type "ClusterIP") -}}
{{- $found = append $found "service.externalTrafficPolicy: is for service.type NodePort and LoadBalancer; choose one of them, or remove it" -}}
{{- end -}}
{{- range $key := list "loadBalancerClass" "loadBalancerSourceRanges" -}}
{{- if and (get $.Values.service $key) (ne $.Values.service.type "LoadBalancer") -}}
{{- $found = append $found (printf "service.%s: is for service.type LoadBalancer, which is %s; change the type, or remove it" $key $.Values.service.type) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found | toJson }}
{{- end }}

{{- define "bridge.refusals.jobs" -}}
{{- $found := list -}}
{{- if and (eq .Values.hooks.phase "post") (include "bridge.makesTopics" .) (not .Values.spool.enabled) -}}
{{- $found = append $found "hooks.phase: post makes the topics when the bridges are ready, and with spool.enabled=false they are not ready without topics; use pre, or topicsJob.enabled=false and `chatapp-bridge topics apply` by hand" -}}
{{- end -}}
{{- if and (eq .Values.hooks.phase "post") (include "bridge.makesTopics" .) (eq (dig "topics" "check" "warn" .Values.config) "refuse") -}}
{{- $found = append $found "config.topics.check: refuse keeps the bridges from starting until the topics are there, and with hooks.phase post topicsJob makes them only after the bridges; use warn, or hooks.phase pre" -}}
{{- end -}}
{{- $found | toJson }}
{{- end }}

{{- define "bridge.refusals.monitoring" -}}
{{- $found := list -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- $found = append $found "metrics.podMonitor.enabled: with metrics.serviceMonitor.enabled each bridge would be scraped, and counted, twice; turn one of them off" -}}
{{- end -}}
{{- $found | toJson }}
{{- end }}
